package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// benchResult is one row measured in one mode.
type benchResult struct {
	Mode         string  `json:"mode"` // latency or throughput
	Name         string  `json:"name"`
	Clients      int     `json:"clients"`
	Calls        uint64  `json:"calls"` // measured exchanges; a batch is one
	Items        uint64  `json:"items"` // operations that succeeded
	Failed       uint64  `json:"failed"`
	Seconds      float64 `json:"seconds"`
	OpsPerSecond float64 `json:"ops_per_second"`
	P50          float64 `json:"p50_us,omitempty"` // of one call, in latency mode
	P90          float64 `json:"p90_us,omitempty"`
	P99          float64 `json:"p99_us,omitempty"`
	Direct       float64 `json:"direct_ops_per_second,omitempty"` // mean of the best reference before and after
	Ratio        float64 `json:"ratio,omitempty"`                 // OpsPerSecond over Direct
	Error        string  `json:"error,omitempty"`                 // the first failure
}

func (c *cli) benchCmd() *cobra.Command {
	var mode, only, direct string
	var duration time.Duration
	var clients int
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast keyward is here",
		Long: `Measure how fast keyward is on this machine. Latency and throughput are two questions, measured one after the other:

  latency      one client, one call at a time: how long does a call take (p50, p90, p99)
  throughput   --clients clients at once: how many operations a second

A JSON batch has 100 items and counts as 100 operations; "octets" is one stream of items per client. The keys are made once,
named alias/bench/..., and used again by the next run.

--direct runs a program that measures the same without keyward, once before and once after, and compares the throughput
with the mean of both, each with its best number of threads. keywardd reference is such a program.
This client takes its share of the processors: the service alone is faster than the figures.`,
		Example: `  keywardctl bench
  keywardctl bench --row 'hardware sign' --mode throughput --clients 16 --duration 5s
  keywardctl bench --direct 'keywardd reference' -o json`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var modes []string
			switch mode {
			case "both":
				modes = []string{"latency", "throughput"}
			case "latency", "throughput":
				modes = []string{mode}
			default:
				return usagef("--mode is latency, throughput or both, not %q", mode)
			}
			if duration <= 0 || duration > 10*time.Minute {
				return usagef("--duration is more than nothing and at most 10m")
			}
			if clients < 1 || clients > 1000 {
				return usagef("--clients is 1 to 1000")
			}
			filter, err := regexp.Compile(only)
			if err != nil {
				return usagef("--row: %v", err)
			}
			var rows []benchRow
			for _, r := range benchRows {
				if filter.MatchString(r.name) {
					rows = append(rows, r)
				}
			}
			if len(rows) == 0 {
				return usagef("no row matches --row %q", only)
			}
			return c.bench(cmd.Context(), rows, modes, duration, clients, direct)
		},
	}
	f := cmd.Flags()
	f.StringVar(&mode, "mode", "both", "latency, throughput or both")
	f.DurationVar(&duration, "duration", time.Second, "how long each row runs in each mode")
	f.IntVar(&clients, "clients", 4*runtime.NumCPU(), "clients at once in throughput mode")
	f.StringVar(&only, "row", "", "only rows whose name matches this regular expression")
	f.StringVar(&direct, "direct", "", "shell command that measures the same without keyward")
	choices(cmd, "mode", "latency", "throughput", "both")
	return cmd
}

func (c *cli) bench(ctx context.Context, rows []benchRow, modes []string, duration time.Duration, clients int, direct string) error {
	jobs, err := c.benchJobs(ctx, rows)
	if err != nil {
		return err
	}
	whole := struct {
		CPUs    int              `json:"cpus"`
		Before  *admin.Reference `json:"direct_before,omitempty"`
		After   *admin.Reference `json:"direct_after,omitempty"`
		Results []benchResult    `json:"rows"`
	}{CPUs: runtime.NumCPU(), Results: []benchResult{}}
	if direct != "" {
		if whole.Before, err = c.runReference(ctx, direct, "before"); err != nil {
			return err
		}
	}
	for _, m := range modes {
		for _, job := range jobs {
			if err := ctx.Err(); err != nil {
				return err
			}
			c.say("%s: %s", m, job.row.name)
			n := clients
			if m == "latency" {
				n = 1
			}
			whole.Results = append(whole.Results, job.measure(ctx, c.client, m, n, duration))
		}
	}
	if direct != "" {
		if whole.After, err = c.runReference(ctx, direct, "after"); err != nil {
			return err
		}
		compare(whole.Results, whole.Before, whole.After)
	}
	if err := c.print(whole, func() error { return c.benchTable(whole.Results, direct != "") }); err != nil {
		return err
	}
	for _, r := range whole.Results {
		if r.Error != "" {
			return fmt.Errorf("%s, %s: %d failed, the first: %s", r.Name, r.Mode, r.Failed, r.Error)
		}
	}
	return nil
}

func (c *cli) benchTable(results []benchResult, direct bool) error {
	columns := []string{"MODE", "ROW", "CLIENTS", "OPS/S", "P50", "P90", "P99", "FAILED"}
	if direct {
		columns = append(columns, "DIRECT/S", "RATIO")
	}
	micros := func(v float64) string {
		switch {
		case v == 0:
			return ""
		case v < 1000:
			return fmt.Sprintf("%.0fus", v)
		}
		return fmt.Sprintf("%.2fms", v/1000)
	}
	return rows(c, results, columns, func(r benchResult) []string {
		cells := []string{r.Mode, r.Name, strconv.Itoa(r.Clients), fmt.Sprintf("%.0f", r.OpsPerSecond),
			micros(r.P50), micros(r.P90), micros(r.P99), strconv.FormatUint(r.Failed, 10)}
		if direct {
			figure, ratio := "", ""
			if r.Direct > 0 {
				figure, ratio = fmt.Sprintf("%.0f", r.Direct), fmt.Sprintf("%.2f", r.Ratio)
			}
			cells = append(cells, figure, ratio)
		}
		return cells
	})
}

// runReference runs a reference program. What it says on its stderr goes to ours.
func (c *cli) runReference(ctx context.Context, command, when string) (*admin.Reference, error) {
	c.say("direct: %s (%s)", command, when)
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stderr = c.stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("--direct %q: %w", command, err)
	}
	var r admin.Reference
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("--direct %q: its output is not the JSON that is wanted: %w", command, err)
	}
	if len(r.Rates) == 0 {
		return nil, fmt.Errorf("--direct %q: its output has no rates", command)
	}
	return &r, nil
}

// compare puts the references beside the throughput rows that do the same.
func compare(results []benchResult, runs ...*admin.Reference) {
	rows := map[string]benchRow{}
	for _, r := range benchRows {
		rows[r.name] = r
	}
	for i := range results {
		r := &results[i]
		if r.Mode != "throughput" {
			continue
		}
		row := rows[r.Name]
		sum, n := 0.0, 0
		for _, run := range runs {
			best := 0.0
			for _, rate := range run.Rates {
				if rate.Engine == row.engine && rate.Operation == row.operation {
					best = max(best, rate.PerSecond)
				}
			}
			if best > 0 {
				sum += best
				n++
			}
		}
		if n > 0 {
			r.Direct = sum / float64(n)
			r.Ratio = r.OpsPerSecond / r.Direct
		}
	}
}

// benchJob is a row whose key is there.
type benchJob struct {
	row            benchRow
	keyID, version string
}

// benchJobs finds or makes the keys. Rows of instances that are not there are left out, and that is said.
func (c *cli) benchJobs(ctx context.Context, rows []benchRow) ([]benchJob, error) {
	instances := map[string]string{}
	err := pages(func(page kmswire.Page) ([]kmswire.KmsInstanceSummary, int, error) {
		var answer kmswire.ListKmsInstancesResponse
		err := c.call(ctx, "ListKmsInstances", &kmswire.ListKmsInstancesRequest{Page: page}, &answer)
		return answer.KmsInstances.KmsInstance, answer.TotalCount, err
	}, func(i kmswire.KmsInstanceSummary) error {
		if _, ok := instances[i.KmsInstanceType]; !ok {
			instances[i.KmsInstanceType] = i.KmsInstanceID
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var jobs []benchJob
	ready := map[string]benchJob{}
	for _, row := range rows {
		instance, ok := instances[row.instance]
		if !ok {
			c.say("left out, as there is no %s instance: %s", row.instance, row.name)
			continue
		}
		alias := benchAlias(row)
		job, ok := ready[alias]
		if !ok {
			if job, err = c.benchKey(ctx, row, alias, instance); err != nil {
				return nil, fmt.Errorf("%s: %w", alias, err)
			}
			ready[alias] = job
		}
		job.row = row
		jobs = append(jobs, job)
	}
	if len(jobs) == 0 {
		return nil, errors.New("there is no instance to measure")
	}
	return jobs, nil
}

func (c *cli) benchKey(ctx context.Context, row benchRow, alias, instance string) (benchJob, error) {
	k, err := c.describe(ctx, alias)
	if e, ok := errors.AsType[*kmsclient.Error](err); ok && apiCodes[e.Code].exit == exitNotFound {
		usage := kmswire.EncryptDecrypt
		if row.algorithm != "" {
			usage = kmswire.SignVerify
		}
		var answer kmswire.CreateKeyResponse
		err = c.call(ctx, "CreateKey", &kmswire.CreateKeyRequest{
			DKMSInstanceID: instance, KeySpec: row.spec, KeyUsage: usage, AliasName: alias, Description: "made by keywardctl bench",
		}, &answer)
		k = &answer.KeyMetadata
	}
	if err != nil {
		return benchJob{}, err
	}
	job := benchJob{keyID: k.KeyID}
	if row.algorithm != "" {
		job.version, err = c.newestVersion(ctx, k.KeyID)
	}
	return job, err
}

// measure runs a row in one mode.
func (j benchJob) measure(ctx context.Context, client *kmsclient.Client, mode string, clients int, duration time.Duration) benchResult {
	// A call that hangs must not hold the bench up for long; one that was begun in time may end.
	ctx, cancel := context.WithTimeout(ctx, duration+10*time.Second)
	defer cancel()
	t := &tally{stop: time.Now().Add(duration)}
	if mode == "latency" {
		t.latency = &histogram{}
	}
	start := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			if err := j.drive(ctx, client, t); err != nil {
				t.fault(err)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start).Seconds()
	r := benchResult{Mode: mode, Name: j.row.name, Clients: clients, Calls: t.calls.Load(), Items: t.items.Load(), Failed: t.failed.Load(),
		Seconds: elapsed, OpsPerSecond: float64(t.items.Load()) / elapsed}
	if t.latency != nil {
		us := func(q float64) float64 { return float64(t.latency.quantile(q)) / float64(time.Microsecond) }
		r.P50, r.P90, r.P99 = us(0.5), us(0.9), us(0.99)
	}
	if err := t.first.Load(); err != nil {
		r.Error = describe(*err)
	}
	return r
}

// tally is what the clients of one measurement add up.
type tally struct {
	stop                 time.Time
	calls, items, failed atomic.Uint64
	first                atomic.Pointer[error]
	latency              *histogram // owned by the only client there is in latency mode; nil in throughput mode
}

func (t *tally) fault(err error) {
	t.failed.Add(1)
	t.first.CompareAndSwap(nil, &err)
}

func (t *tally) call(began time.Time, items int) {
	t.calls.Add(1)
	t.items.Add(uint64(items))
	if t.latency != nil {
		t.latency.add(time.Since(began))
	}
}

// drive is one client. It stops at the time, or at the first call that fails as a whole.
func (j benchJob) drive(ctx context.Context, client *kmsclient.Client, t *tally) error {
	item := make([]byte, benchPlaintext)
	if j.row.algorithm != "" {
		item = make([]byte, kmswire.DigestSize)
	}
	switch j.row.form {
	case octetFlow:
		return j.driveOctets(ctx, client, t, item)
	case jsonBatch:
		return j.driveJSON(ctx, client, t, item)
	}
	for time.Now().Before(t.stop) {
		began := time.Now()
		var err error
		if j.row.algorithm != "" {
			var answer kmswire.AsymmetricSignResponse
			err = kmsclient.Call(ctx, client, "AsymmetricSign", &kmswire.AsymmetricSignRequest{KeyID: j.keyID, KeyVersionID: j.version, Algorithm: j.row.algorithm, Digest: item}, &answer)
		} else {
			var answer kmswire.EncryptResponse
			err = kmsclient.Call(ctx, client, "Encrypt", &kmswire.EncryptRequest{KeyID: j.keyID, Plaintext: item}, &answer)
		}
		if err != nil {
			return err
		}
		t.call(began, 1)
	}
	return nil
}

func (j benchJob) driveJSON(ctx context.Context, client *kmsclient.Client, t *tally, item []byte) error {
	req := &kmswire.BatchEncryptRequest{KeyID: j.keyID}
	for range benchBatch {
		req.Items = append(req.Items, kmswire.BatchEncryptItem{Plaintext: item})
	}
	for time.Now().Before(t.stop) {
		began := time.Now()
		var answer kmswire.BatchEncryptResponse
		if err := kmsclient.Call(ctx, client, "BatchEncrypt", req, &answer); err != nil {
			return err
		}
		good := 0
		for _, result := range answer.Items {
			if result.ItemError != nil {
				t.fault(&kmsclient.Error{Code: result.Code, Message: result.Message})
				continue
			}
			good++
		}
		if len(answer.Items) != benchBatch {
			return fmt.Errorf("a batch of %d items has %d results", benchBatch, len(answer.Items))
		}
		t.call(began, good)
	}
	return nil
}

func (j benchJob) driveOctets(ctx context.Context, client *kmsclient.Client, t *tally, item []byte) error {
	action, req := "BatchEncrypt", any(&kmswire.BatchEncryptRequest{KeyID: j.keyID})
	if j.row.algorithm != "" {
		action, req = "BatchSign", &kmswire.BatchSignRequest{KeyID: j.keyID, KeyVersionID: j.version, Algorithm: j.row.algorithm}
	}
	batch, err := client.OpenOctets(ctx, action, req)
	if err != nil {
		return err
	}
	defer batch.Close()
	receive := func(began time.Time) error {
		_, failed, err := batch.Recv()
		if err == nil && failed != nil {
			t.fault(failed)
			return nil
		}
		if err == nil {
			t.call(began, 1)
		}
		return err
	}
	if t.latency != nil { // one item at a time
		for time.Now().Before(t.stop) {
			began := time.Now()
			if err := batch.Send(item); err != nil {
				return err
			}
			if err := batch.Flush(); err != nil {
				return err
			}
			if err := receive(began); err != nil {
				return err
			}
		}
		return batch.CloseSend()
	}
	sent := make(chan error, 1)
	go func() { // ends at the time, or when the batch is closed
		for n := 0; ; n++ {
			if n%16 == 0 && !time.Now().Before(t.stop) {
				sent <- batch.CloseSend()
				return
			}
			if err := batch.Send(item); err != nil {
				sent <- err
				return
			}
		}
	}()
	for {
		if err := receive(time.Time{}); err == io.EOF {
			return <-sent
		} else if err != nil {
			return err
		}
	}
}
