package daemon

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/rs/zerolog"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/pkcs11front"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/xki"
)

// full is an observation in which every figure is another number.
func full() observation {
	return observation{
		members: []hsmpool.Status{{
			Name: "a", State: hsmpool.StateHalfOpen, Sessions: 1, Lanes: 2, Window: 3, InFlight: 4, Keys: 5, Queue: 6, Done: 7, Failed: 8, Failovers: 9, Restarts: 10,
			Codes: map[string]uint64{"CKR_DEVICE_ERROR": 11}, Endings: map[string]uint64{"crashed": 22},
			Latency: hsmpool.Histogram{Bounds: []time.Duration{time.Millisecond, time.Second}, Counts: []uint64{1, 2, 3}, Sum: 12 * time.Second},
		}},
		totals: hsmpool.Totals{Waiting: 13, Room: 14, Principals: 15, Throttled: 16, Retries: 17, NoBudget: 18, Abandoned: 19},
		store:  keystore.Health{Keys: 20, Sequence: 21},
		pkcs11: pkcs11front.Stats{Connections: 23, Applications: 24, Sessions: 25, Refused: 26, Calls: []pkcs11front.CallCount{{Name: "C_Sign", RV: ck.CKR_KEY_HANDLE_INVALID, N: 27}}},
		served: map[string][]xki.Count{"ks1": {{Operation: "encrypt", Result: "throttling", N: 28}}},
		asked:  []connectionCounts{{"kst-x", true, []xki.Count{{Operation: "decrypt", Result: "ok", N: 29}}}},
	}
}

// TestMetrics collects a full observation: every row of the table gives its figure, and Prometheus's own lint has nothing to
// say.
func TestMetrics(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newCollector(full))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		`keyward_hsm_up{member="a"} 1`, `keyward_hsm_state{member="a",state="half-open"} 1`, `keyward_hsm_state{member="a",state="up"} 0`,
		`keyward_hsm_sessions{member="a"} 1`, `keyward_hsm_lanes{member="a"} 2`, `keyward_hsm_window{member="a"} 3`, `keyward_hsm_in_flight{member="a"} 4`,
		`keyward_hsm_keys_loaded{member="a"} 5`, `keyward_hsm_queue{member="a"} 6`, `keyward_hsm_operations_total{member="a",result="done"} 7`,
		`keyward_hsm_operations_total{member="a",result="failed"} 8`, `keyward_hsm_failovers_total{member="a"} 9`, `keyward_hsm_worker_restarts_total{member="a"} 10`,
		`keyward_hsm_worker_ends_total{member="a",reason="crashed"} 22`, `keyward_hsm_errors_total{code="CKR_DEVICE_ERROR",member="a"} 11`,
		`keyward_hsm_operation_seconds_bucket{member="a",le="0.001"} 1`, `keyward_hsm_operation_seconds_bucket{member="a",le="1"} 3`,
		`keyward_hsm_operation_seconds_bucket{member="a",le="+Inf"} 6`, `keyward_hsm_operation_seconds_sum{member="a"} 12`,
		`keyward_pkcs11_connections 23`, `keyward_pkcs11_applications 24`, `keyward_pkcs11_sessions 25`, `keyward_pkcs11_refused_total 26`,
		`keyward_pkcs11_calls_total{call="C_Sign",code="CKR_KEY_HANDLE_INVALID"} 27`,
		`keyward_pool_waiting 13`, `keyward_pool_room 14`, `keyward_pool_principals 15`, `keyward_pool_throttled_total 16`, `keyward_pool_retries_total 17`,
		`keyward_pool_retries_refused_total 18`, `keyward_pool_abandoned_total 19`, `keyward_store_keys 20`, `keyward_store_commits_total 21`,
		`keyward_xki_requests_total{operation="encrypt",prefix="ks1",result="throttling"} 28`, `keyward_xki_connected{instance="kst-x"} 1`,
		`keyward_xki_calls_total{instance="kst-x",operation="decrypt",result="ok"} 29`,
		`keyward_build_info{version="` + Version() + `"} 1`,
	}
	lines := strings.Split(text.String(), "\n")
	for _, w := range want {
		found := false
		for _, l := range lines {
			found = found || l == w
		}
		if !found {
			t.Errorf("there is no line %s in\n%s", w, &text)
		}
	}
	for _, m := range metrics {
		if !strings.Contains(strings.Join(want, "\n"), m.name) {
			t.Errorf("this test does not look at %s", m.name)
		}
	}
	if (len(metrics)) != len(families) {
		t.Errorf("%d rows gave %d metrics", len(metrics), len(families))
	}
}

// TestScrape scrapes a real appliance, through its socket.
func TestScrape(t *testing.T) {
	a := newAppliance(t)
	text, err := a.client.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	families := parseMetrics(t, text)
	for _, m := range metrics {
		// These have no row as long as there was no error, and no call; those of external keys TestXKIAdministration looks at.
		if families[m.name] == nil && m.name != "keyward_hsm_errors_total" && m.name != "keyward_pkcs11_calls_total" && !strings.HasPrefix(m.name, "keyward_xki_") {
			t.Errorf("there is no %s", m.name)
		}
	}
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if families[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
	if up := families["keyward_hsm_up"]; len(up.GetMetric()) != 2 || up.GetMetric()[0].GetGauge().GetValue() != 1 {
		t.Errorf("up is %v", up)
	}
}

func parseMetrics(t *testing.T, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// TestNothingToMeasure sees that a pool without figures gives metrics all the same.
func TestNothingToMeasure(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newCollector(func() observation {
		return observation{members: []hsmpool.Status{{Name: "a", State: hsmpool.StateDown}}}
	}))
	if _, err := r.Gather(); err != nil {
		t.Error(err)
	}
	metricsLog{zerolog.Nop()}.Println("nothing")
}

func TestQuantile(t *testing.T) {
	bounds := []time.Duration{time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond}
	for _, row := range []struct {
		counts []uint64
		q      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{[]uint64{0, 0, 0, 0}, 0.99, 0},
		{[]uint64{10, 0, 0, 0}, 0.5, 500 * time.Microsecond},
		{[]uint64{0, 10, 0, 0}, 0.5, 1500 * time.Microsecond},
		{[]uint64{50, 0, 50, 0}, 0.99, 3960 * time.Microsecond},
		{[]uint64{0, 0, 0, 7}, 0.5, 4 * time.Millisecond},
		{[]uint64{98, 0, 0, 2}, 0.99, 4 * time.Millisecond},
	} {
		if got := quantile(&hsmpool.Histogram{Bounds: bounds, Counts: row.counts}, row.q); got.Round(time.Microsecond) != row.want {
			t.Errorf("%v of %v: %v, want %v", row.q, row.counts, got, row.want)
		}
	}
}
