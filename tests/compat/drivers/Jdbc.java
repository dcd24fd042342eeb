// pgjdbc in each of its query modes. Prints one JSON object: step → what was seen.
import java.sql.*;
import java.util.*;

public class Jdbc {
    static final Map<String, String> seen = new LinkedHashMap<>();
    static final List<String> notices = new ArrayList<>();

    static String quoted(String s) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : s.toCharArray()) {
            if (c == '"' || c == '\\') out.append('\\').append(c);
            else if (c < 32) out.append(String.format("\\u%04x", (int) c));
            else out.append(c);
        }
        return out.append('"').toString();
    }

    static String errorOf(SQLException e) {
        org.postgresql.util.ServerErrorMessage m = ((org.postgresql.util.PSQLException) e).getServerErrorMessage();
        return m == null ? e.toString() : m.getSQLState() + " | " + m.getMessage() + " | " + m.getDetail() + " | " + m.getHint();
    }

    static String attempt(Connection c, String sql, Object... values) {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) s.setObject(i + 1, values[i]);
            StringBuilder out = new StringBuilder();
            if (s.execute()) {
                ResultSet r = s.getResultSet();
                while (r.next()) {
                    for (int i = 1; i <= r.getMetaData().getColumnCount(); i++) out.append(r.getString(i)).append(' ');
                    out.append("/ ");
                }
            } else out.append(s.getUpdateCount()).append(" rows");
            for (SQLWarning w = s.getWarnings(); w != null; w = w.getNextWarning()) notices.add(w.getMessage());
            return out.toString();
        } catch (SQLException e) {
            return errorOf(e);
        }
    }

    static void work(Connection c, String mode) throws Exception {
        String t = "j_" + mode.toLowerCase();
        attempt(c, "CREATE TABLE " + t + " (id int PRIMARY KEY, note text, at timestamp, amount numeric, raw bytea)");
        seen.put("insert", attempt(c, "INSERT INTO " + t + " VALUES (?, ?, ?, ?, ?)",
            1, "ä €", Timestamp.valueOf("2026-01-02 03:04:05"), new java.math.BigDecimal("1.50"), new byte[] {0, 1}));
        seen.put("read", attempt(c, "SELECT * FROM " + t));
        seen.put("unique", attempt(c, "INSERT INTO " + t + " (id) VALUES (1)"));
        seen.put("syntax", attempt(c, "SELEC 1"));
        for (int i = 0; i < 12; i++) seen.put("repeated", attempt(c, "SELECT ?::int + 1", i));
        c.setAutoCommit(false);
        try (PreparedStatement s = c.prepareStatement("INSERT INTO " + t + " (id, note) VALUES (?, ?)")) {
            for (int i = 100; i < 3100; i++) { s.setInt(1, i); s.setString(2, "n" + i); s.addBatch(); }
            seen.put("batch", "" + Arrays.stream(s.executeBatch()).sum());
        }
        c.commit();
        try (Statement s = c.createStatement()) {
            s.setFetchSize(50);
            long total = 0;
            ResultSet r = s.executeQuery("SELECT id FROM " + t);
            while (r.next()) total += r.getInt(1);
            seen.put("fetch size", "" + total);
        }
        try (PreparedStatement s = c.prepareStatement("INSERT INTO " + t + " (id) VALUES (?)")) {
            for (int i : new int[] {-1, 100, -2}) { s.setInt(1, i); s.addBatch(); }
            s.executeBatch();
        } catch (BatchUpdateException e) {
            seen.put("failed batch", errorOf(e.getNextException() == null ? e : e.getNextException()));
        }
        c.rollback();
        Savepoint p = c.setSavepoint("p");
        seen.put("in transaction", attempt(c, "SELECT 1/0"));
        seen.put("aborted", attempt(c, "SELECT 1"));
        c.rollback(p);
        seen.put("after savepoint", attempt(c, "SELECT count(*) FROM " + t));
        c.commit();
        c.setAutoCommit(true);
        org.postgresql.PGConnection pg = c.unwrap(org.postgresql.PGConnection.class);
        seen.put("copy in", "" + pg.getCopyAPI().copyIn("COPY " + t + " (id) FROM STDIN", new java.io.StringReader("-10\n-11\n")));
        java.io.StringWriter out = new java.io.StringWriter();
        seen.put("copy out", pg.getCopyAPI().copyOut("COPY (SELECT id FROM " + t + " WHERE id < 0 ORDER BY id) TO STDOUT", out)
            + " " + out);
        attempt(c, "LISTEN heard");
        attempt(c, "NOTIFY heard, 'you'");
        org.postgresql.PGNotification[] heard = pg.getNotifications(30000);
        seen.put("notify", heard[0].getName() + " " + heard[0].getParameter());
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1);
            s.execute("SELECT pg_sleep(60)");
        } catch (SQLException e) {
            seen.put("cancel", errorOf(e));
        }
        ResultSet r = c.getMetaData().getColumns(null, "public", t, "%");
        StringBuilder columns = new StringBuilder();
        while (r.next()) columns.append(r.getString("COLUMN_NAME")).append(' ').append(r.getString("TYPE_NAME")).append("; ");
        seen.put("metadata", columns.toString());
        attempt(c, "DO $$ BEGIN RAISE NOTICE 'told'; END $$");
    }

    public static void main(String[] args) throws Exception {
        Map<String, String> env = System.getenv();
        Properties p = new Properties();
        p.setProperty("user", env.get("PGUSER"));
        p.setProperty("password", env.get("PGPASSWORD"));
        String mode = args[2];
        p.setProperty("preferQueryMode", mode);
        String name = java.net.URLEncoder.encode(env.get("PGDATABASE"), "UTF-8");
        try (Connection c = DriverManager.getConnection(
                "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + name, p)) {
            if (args[0].equals("work")) work(c, mode);
            else for (String line : args[1].split("\u001e")) {
                String[] step = line.split("\u001f");
                seen.put(step[0], attempt(c, step[1]));
            }
        }
        StringJoiner all = new StringJoiner(", ", "{", "}");
        seen.forEach((k, v) -> all.add(quoted(k) + ": " + quoted(v)));
        StringJoiner said = new StringJoiner(", ", "[", "]");
        notices.forEach(n -> said.add(quoted(n)));
        System.out.println(all.toString().replaceAll("}$", ", \"notices\": ") + said + "}");
    }
}
