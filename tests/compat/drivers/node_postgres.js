// node-postgres with its cursor and its stream. Prints one JSON object: step → what was seen.
const { Client } = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");

const seen = {};
const notices = [];
const errorOf = (e) => [e.code, e.message, e.detail, e.hint, e.severity];

async function attempt(client, sql, values) {
  try {
    const result = await client.query(sql, values);
    return Array.isArray(result) ? result.map((r) => r.rows) : result.rows.length ? result.rows : result.command;
  } catch (error) {
    return errorOf(error);
  }
}

async function work(client) {
  await client.query("CREATE TABLE n (id int PRIMARY KEY, note text, at timestamptz, data jsonb, raw bytea)");
  seen.insert = await attempt(client, "INSERT INTO n VALUES ($1, $2, $3, $4, $5) RETURNING *",
    [1, "ä €", new Date(0), { a: [1, null] }, Buffer.from([0, 255])]);
  seen.unique = await attempt(client, "INSERT INTO n (id) VALUES ($1)", [1]);
  seen.syntax = await attempt(client, "SELEC 1");
  seen.several = await attempt(client, "SELECT 1 AS a; SELECT 2 AS b");
  seen.named = await attempt(client, { name: "s", text: "SELECT $1::int + 1 AS n", values: [41] });
  seen.again = await attempt(client, { name: "s", text: "SELECT $1::int + 1 AS n", values: [1] });
  seen.binary = await attempt(client, { text: "SELECT 7::int8 AS n, 'x'::text AS t", values: [], binary: true });
  const cursor = client.query(new Cursor("SELECT i FROM generate_series(1, 1000) i"));
  let total = 0;
  for (;;) {
    const rows = await cursor.read(77);
    if (!rows.length) break;
    total += rows.reduce((sum, row) => sum + row.i, 0);
  }
  await cursor.close();
  seen.cursor = total;
  total = 0;
  for await (const row of client.query(new QueryStream("SELECT i FROM generate_series(1, 5000) i"))) total += row.i;
  seen.stream = total;
  const heard = new Promise((resolve) => client.once("notification", (m) => resolve([m.channel, m.payload])));
  await client.query("LISTEN heard");
  await client.query("NOTIFY heard, 'you'");
  seen.notify = await heard;
  await client.query("BEGIN");
  seen.failed = await attempt(client, "SELECT 1/0");
  seen.aborted = await attempt(client, "SELECT 1");
  seen.rollback = await attempt(client, "ROLLBACK");
  seen.many = (await Promise.all([...Array(300).keys()].map((i) => client.query("SELECT $1::int AS n", [i]))))
    .reduce((sum, r) => sum + r.rows[0].n, 0);
  await client.query("DO $$ BEGIN RAISE NOTICE 'told'; END $$");
}

async function main() {
  const client = new Client();
  client.on("notice", (n) => notices.push(`${n.severity}: ${n.message}`));
  await client.connect();
  if (process.argv[2] === "work") await work(client);
  else for (const [step, sql] of JSON.parse(process.argv[3])) seen[step] = await attempt(client, sql);
  await client.end();
  console.log(JSON.stringify({ ...seen, notices }));
}
main();
