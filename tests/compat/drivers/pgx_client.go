// pgx in each of its ways to run a query. Prints one JSON object: step → what was seen.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var seen = map[string]any{}
var notices = []string{}

func errorOf(err error) any {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return []string{pg.Code, pg.Message, pg.Detail, pg.Hint, pg.Severity}
	}
	return err.Error()
}

func attempt(c *pgx.Conn, sql string, values ...any) any {
	rows, err := c.Query(context.Background(), sql, values...)
	if err != nil {
		return errorOf(err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		return fmt.Sprint(values...), err
	})
	if err != nil {
		return errorOf(err)
	}
	if len(all) == 0 {
		return rows.CommandTag().String()
	}
	return all
}

func work(c *pgx.Conn, mode string) {
	ctx := context.Background()
	t := "g_" + mode
	attempt(c, "CREATE TABLE "+t+" (id int PRIMARY KEY, note text, tags text[], raw bytea)")
	seen["insert"] = attempt(c, "INSERT INTO "+t+" VALUES ($1, $2, $3, $4) RETURNING *", 1, "ä €", []string{"a", "b,c"}, []byte{0, 255})
	seen["unique"] = attempt(c, "INSERT INTO "+t+" (id) VALUES ($1)", 1)
	seen["syntax"] = attempt(c, "SELEC 1")
	seen["missing"] = attempt(c, "SELECT * FROM gone")
	batch := &pgx.Batch{}
	for i := 100; i < 400; i++ {
		batch.Queue("INSERT INTO "+t+" (id) VALUES ($1)", i)
	}
	seen["batch"] = fmt.Sprint(c.SendBatch(ctx, batch).Close())
	batch = &pgx.Batch{}
	for _, i := range []int{-1, 100, -2} {
		batch.Queue("INSERT INTO "+t+" (id) VALUES ($1)", i)
	}
	seen["failed batch"] = errorOf(c.SendBatch(ctx, batch).Close())
	seen["after"] = attempt(c, "SELECT count(*) FROM "+t)
	rows := [][]any{}
	for i := 1000; i < 3000; i++ {
		rows = append(rows, []any{i, "copied"})
	}
	count, err := c.CopyFrom(ctx, pgx.Identifier{t}, []string{"id", "note"}, pgx.CopyFromRows(rows))
	seen["copy"] = fmt.Sprint(count, err)
	tx, _ := c.Begin(ctx)
	inner, _ := tx.Begin(ctx)
	_, err = inner.Exec(ctx, "SELECT 1/0")
	seen["in savepoint"] = errorOf(err)
	seen["released"] = fmt.Sprint(inner.Rollback(ctx), tx.Commit(ctx))
	attempt(c, "LISTEN heard")
	attempt(c, "NOTIFY heard, 'you'")
	wait, stop := context.WithTimeout(ctx, 30*time.Second)
	heard, err := c.WaitForNotification(wait)
	stop()
	if err == nil {
		seen["notify"] = heard.Channel + " " + heard.Payload
	}
	attempt(c, "DO $$ BEGIN RAISE NOTICE 'told'; END $$")
}

func main() {
	modes := map[string]pgx.QueryExecMode{
		"cache_statement": pgx.QueryExecModeCacheStatement, "cache_describe": pgx.QueryExecModeCacheDescribe,
		"describe_exec": pgx.QueryExecModeDescribeExec, "exec": pgx.QueryExecModeExec, "simple": pgx.QueryExecModeSimpleProtocol,
	}
	config, err := pgx.ParseConfig("")
	if err != nil {
		panic(err)
	}
	mode := os.Args[3]
	config.DefaultQueryExecMode = modes[mode]
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Severity+": "+n.Message) }
	c, err := pgx.ConnectConfig(context.Background(), config)
	if err != nil {
		panic(err)
	}
	if os.Args[1] == "work" {
		work(c, mode)
	} else {
		var steps [][2]string
		if err := json.Unmarshal([]byte(os.Args[2]), &steps); err != nil {
			panic(err)
		}
		for _, step := range steps {
			seen[step[0]] = attempt(c, step[1])
		}
	}
	c.Close(context.Background())
	seen["notices"] = notices
	out, _ := json.Marshal(seen)
	fmt.Println(string(out))
}
