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
	"slices"
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
	P50          float64 `json:"p50_us,omitempty"` // of one call, in latency mode, and with faults in any
	P90          float64 `json:"p90_us,omitempty"`
	P99          float64 `json:"p99_us,omitempty"`
	Max          float64 `json:"max_us,omitempty"`
	Faults       uint64  `json:"faults"`                          // calls into an HSM that met a --fault
	Direct       float64 `json:"direct_ops_per_second,omitempty"` // mean of the best reference before and after
	Ratio        float64 `json:"ratio,omitempty"`                 // OpsPerSecond over Direct
	Error        string  `json:"error,omitempty"`                 // the first failure
}

func (c *cli) benchCmd() *cobra.Command {
	var mode, only, direct string
	var duration, every time.Duration
	var clients int
	var faults []string
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
This client takes its share of the processors: the service alone is faster than the figures.

--fault has HSMs fail, to see what callers notice of it. It works with members whose module is a copy of the faulty module,
which wraps SoftHSM2; "make faulty" in keyward's source tree makes bin/faulty/east.so and west.so, one for each member of
keywardd dev, and faulty.so for trying one alone. Start keywardd dev once, stop it, point each member at its copy by the line

  module = "/PATH/TO/bin/faulty/east.so"

in its [[member]] of keyward.toml (all members, for a module that is in use directly can't be wrapped in the same process),
and start it again. "keywardd dev --module bin/faulty/faulty.so" with a new --dir does without, but then a fault meets
both members. Faulty modules are for trying out, and never to be installed.

A fault is MODULE:ORDER. These are given again and again while a throughput row runs, every --fault-every, and released
after half of that time:

  crash=FUNCTION        the next call of the PKCS#11 function, such as C_Sign, ends its process with SIGSEGV
  exit=FUNCTION         the next call ends its process
  hang=FUNCTION         calls hang until the release, and go on then
  fail=FUNCTION:CODE    calls fail; the code is a name such as CKR_DEVICE_ERROR, or 0x and its number

These hold for the whole run and are taken back at its end:

  delay=FUNCTION:TIME   calls take longer, such as by 2ms
  slow=FUNCTION:FACTOR  calls take so many times as long
  sessions=N            the token takes no more than N sessions of one process
  serialise             the module does one call at a time

FAULTS counts the calls that met one of the first kind, FAILED the calls of keyward that failed; the client that made one
counts it, waits 10ms and goes on, and bench ends well. P50 to MAX are then there in both modes, and of all calls, failed
ones too. Nothing else may order the modules meanwhile: bench takes back what it finds.`,
		Example: `  keywardctl bench
  keywardctl bench --row 'hardware sign' --mode throughput --clients 16 --duration 5s
  keywardctl bench --direct 'keywardd reference' -o json
  keywardctl bench --row 'hardware sign' --duration 10s --fault bin/faulty/east.so:fail=C_Sign:CKR_DEVICE_ERROR
  keywardctl bench --row 'hardware' --fault bin/faulty/east.so:delay=C_Sign:2ms --fault bin/faulty/west.so:hang=C_Sign`,
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
			plan, err := parseFaults(faults, every, slices.Contains(modes, "throughput"))
			if err != nil {
				return err
			}
			return c.bench(cmd.Context(), rows, modes, duration, clients, direct, plan)
		},
	}
	f := cmd.Flags()
	f.StringVar(&mode, "mode", "both", "latency, throughput or both")
	f.DurationVar(&duration, "duration", time.Second, "how long each row runs in each mode")
	f.IntVar(&clients, "clients", 4*runtime.NumCPU(), "clients at once in throughput mode")
	f.StringVar(&only, "row", "", "only rows whose name matches this regular expression")
	f.StringVar(&direct, "direct", "", "shell command that measures the same without keyward")
	f.StringArrayVar(&faults, "fault", nil, "have an HSM fail: MODULE:ORDER, as above; may be given several times")
	f.DurationVar(&every, "fault-every", time.Second, "how often faults are given")
	choices(cmd, "mode", "latency", "throughput", "both")
	return cmd
}

func (c *cli) bench(ctx context.Context, rows []benchRow, modes []string, duration time.Duration, clients int, direct string, plan *faultPlan) (err error) {
	// First, for what is wrong with it is soon found; the orders begin when all keys are there.
	if err := plan.open(c.say); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plan.end()) }()
	jobs, err := c.benchJobs(ctx, rows)
	if err != nil {
		return err
	}
	whole := struct {
		CPUs    int              `json:"cpus"`
		Before  *admin.Reference `json:"direct_before,omitempty"`
		After   *admin.Reference `json:"direct_after,omitempty"`
		Orders  []string         `json:"fault_orders,omitempty"`
		Results []benchResult    `json:"rows"`
	}{CPUs: runtime.NumCPU(), Orders: plan.texts(), Results: []benchResult{}}
	if direct != "" {
		if whole.Before, err = c.runReference(ctx, direct, "before"); err != nil {
			return err
		}
	}
	if err := plan.begin(); err != nil {
		return err
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
			result, err := job.measure(ctx, c.client, m, n, duration, plan)
			if err != nil {
				return err
			}
			whole.Results = append(whole.Results, result)
		}
	}
	if err := plan.end(); err != nil {
		return err
	}
	if direct != "" {
		if whole.After, err = c.runReference(ctx, direct, "after"); err != nil {
			return err
		}
		compare(whole.Results, whole.Before, whole.After)
	}
	if err := c.print(whole, func() error { return c.benchTable(whole.Results, direct != "", plan.any()) }); err != nil {
		return err
	}
	for _, r := range whole.Results {
		switch {
		case r.Error != "" && plan.any(): // what was to be seen
			c.say("%s, %s: %d failed, the first: %s", r.Name, r.Mode, r.Failed, r.Error)
		case r.Error != "":
			return fmt.Errorf("%s, %s: %d failed, the first: %s", r.Name, r.Mode, r.Failed, r.Error)
		}
	}
	return nil
}

func (c *cli) benchTable(results []benchResult, direct, faults bool) error {
	columns := []string{"MODE", "ROW", "CLIENTS", "OPS/S", "P50", "P90", "P99", "FAILED"}
	if faults {
		columns = append(columns, "MAX", "FAULTS")
	}
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
		if faults {
			cells = append(cells, micros(r.Max), strconv.FormatUint(r.Faults, 10))
		}
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

// measure runs a row in one mode. Its error is one of giving the faults.
func (j benchJob) measure(ctx context.Context, client *kmsclient.Client, mode string, clients int, duration time.Duration, plan *faultPlan) (benchResult, error) {
	// A call that hangs must not hold the bench up for long; one that was begun in time may end.
	ctx, cancel := context.WithTimeout(ctx, duration+10*time.Second)
	defer cancel()
	t := &tally{stop: time.Now().Add(duration), single: mode == "latency", goOn: plan.any()}
	all := make([]*caller, clients)
	for i := range all {
		all[i] = &caller{tally: t}
		if t.single || plan.any() {
			all[i].latency = &histogram{}
		}
	}
	endFaults := func() (uint64, error) { return 0, nil }
	if mode == "throughput" {
		endFaults = plan.give(t.stop)
	}
	start := time.Now()
	var wg sync.WaitGroup
	for _, who := range all {
		wg.Go(func() { j.drive(ctx, client, who) })
	}
	wg.Wait()
	elapsed := time.Since(start).Seconds()
	met, err := endFaults()
	r := benchResult{Mode: mode, Name: j.row.name, Clients: clients, Calls: t.calls.Load(), Items: t.items.Load(), Failed: t.failed.Load(),
		Seconds: elapsed, OpsPerSecond: float64(t.items.Load()) / elapsed, Faults: met}
	if all[0].latency != nil {
		var whole histogram
		for _, who := range all {
			whole.merge(who.latency)
		}
		us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
		r.P50, r.P90, r.P99, r.Max = us(whole.quantile(0.5)), us(whole.quantile(0.9)), us(whole.quantile(0.99)), us(whole.longest)
	}
	if err := t.first.Load(); err != nil {
		r.Error = describe(*err)
	}
	return r, err
}

// tally is what the clients of one measurement add up.
type tally struct {
	stop                 time.Time
	single               bool // one item at a time
	goOn                 bool // after a call that failed
	calls, items, failed atomic.Uint64
	first                atomic.Pointer[error]
}

func (t *tally) fault(err error) {
	t.failed.Add(1)
	t.first.CompareAndSwap(nil, &err)
}

// caller is one client of a measurement.
type caller struct {
	*tally
	latency *histogram // its own; nil when nobody asks
}

// call counts a call that answered.
func (c *caller) call(began time.Time, items int) {
	c.calls.Add(1)
	c.items.Add(uint64(items))
	c.took(began)
}

// took counts how long a call took, also one that failed.
func (c *caller) took(began time.Time) {
	if c.latency != nil {
		c.latency.add(time.Since(began))
	}
}

// benchPause is how long a client waits after a call that failed, when it is to go on. Without, calls to a daemon that is gone
// would fail as fast as the machine can.
const benchPause = 10 * time.Millisecond

// drive is one client, until the time is up, or until the first call that fails as a whole if it is not to go on.
func (j benchJob) drive(ctx context.Context, client *kmsclient.Client, who *caller) {
	for {
		err := j.driveOn(ctx, client, who)
		if err == nil {
			return
		}
		who.fault(err)
		if !who.goOn {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(benchPause):
		}
	}
}

// driveOn makes calls until the time is up or one fails as a whole.
func (j benchJob) driveOn(ctx context.Context, client *kmsclient.Client, who *caller) error {
	item := make([]byte, benchPlaintext)
	if j.row.algorithm != "" {
		item = make([]byte, kmswire.DigestSize)
	}
	switch j.row.form {
	case octetFlow:
		return j.driveOctets(ctx, client, who, item)
	case jsonBatch:
		return j.driveJSON(ctx, client, who, item)
	}
	for time.Now().Before(who.stop) {
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
			who.took(began)
			return err
		}
		who.call(began, 1)
	}
	return nil
}

func (j benchJob) driveJSON(ctx context.Context, client *kmsclient.Client, who *caller, item []byte) error {
	req := &kmswire.BatchEncryptRequest{KeyID: j.keyID}
	for range benchBatch {
		req.Items = append(req.Items, kmswire.BatchEncryptItem{Plaintext: item})
	}
	for time.Now().Before(who.stop) {
		began := time.Now()
		var answer kmswire.BatchEncryptResponse
		if err := kmsclient.Call(ctx, client, "BatchEncrypt", req, &answer); err != nil {
			who.took(began)
			return err
		}
		good := 0
		for _, result := range answer.Items {
			if result.ItemError != nil {
				who.fault(&kmsclient.Error{Code: result.Code, Message: result.Message})
				continue
			}
			good++
		}
		if len(answer.Items) != benchBatch {
			return fmt.Errorf("a batch of %d items has %d results", benchBatch, len(answer.Items))
		}
		who.call(began, good)
	}
	return nil
}

func (j benchJob) driveOctets(ctx context.Context, client *kmsclient.Client, who *caller, item []byte) error {
	action, req := "BatchEncrypt", any(&kmswire.BatchEncryptRequest{KeyID: j.keyID})
	if j.row.algorithm != "" {
		action, req = "BatchSign", &kmswire.BatchSignRequest{KeyID: j.keyID, KeyVersionID: j.version, Algorithm: j.row.algorithm}
	}
	ctx, cancel := context.WithDeadline(ctx, who.stop.Add(benchGrace))
	defer cancel()
	batch, err := client.OpenOctets(ctx, action, req)
	if err != nil {
		return err
	}
	defer batch.Close()
	receive := func(began func() time.Time) error {
		_, failed, err := batch.Recv()
		switch {
		case err != nil:
		case failed != nil:
			who.took(began())
			who.fault(failed)
		default:
			who.call(began(), 1)
		}
		return err
	}
	if who.single {
		for time.Now().Before(who.stop) {
			began := time.Now()
			err := batch.Send(item)
			if err == nil {
				err = batch.Flush()
			}
			if err == nil {
				err = receive(func() time.Time { return began })
			}
			if err != nil {
				who.took(began)
				return err
			}
		}
		return batch.CloseSend()
	}
	// What is under way is bounded, or a slow row would go on long after its time.
	window := make(chan time.Time, benchWindow) // when each began
	sent := make(chan error, 1)
	go func() { // ends at the time, or with ctx, which the caller ends by the batch
		sent <- func() error {
			for n := 0; n%16 != 0 || time.Now().Before(who.stop); n++ {
				select {
				case window <- time.Now():
				default: // about to wait for answers: the service must have what it is to answer
					if err := batch.Flush(); err != nil {
						return err
					}
					select {
					case window <- time.Now():
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				if err := batch.Send(item); err != nil {
					return err
				}
			}
			return batch.CloseSend()
		}()
	}()
	err = nil
	for err == nil {
		err = receive(func() time.Time { return <-window })
	}
	if err == io.EOF {
		return <-sent
	}
	cancel()
	<-sent
	if errors.Is(err, context.DeadlineExceeded) && !time.Now().Before(who.stop) {
		return nil // the rest is not waited for, and not counted
	}
	_, never := errors.AsType[*kmsclient.UnreachableError](err)
	if who.goOn && !never { // what was under way failed with the stream; our caller counts the last
		for i := range len(window) {
			who.took(<-window)
			if i > 0 {
				who.fault(err)
			}
		}
	}
	return err
}
