package daemon

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/pkcs11front"
	"github.com/keyward/keyward/xki"
)

// observation is what the metrics are made of, taken at one moment.
type observation struct {
	members []hsmpool.Status
	totals  hsmpool.Totals
	store   keystore.Health
	pkcs11  pkcs11front.Stats
	served  map[string][]xki.Count // of external keys, by prefix
	asked   []connectionCounts
}

// observe takes one. It waits for nothing.
func (s *server) observe() observation {
	return observation{s.pool.Status(), s.pool.Totals(), s.store.Health(), s.front.Stats(), s.external.proxy.Counts(), s.external.observe()}
}

// metric is one row of the table: a name, and where its values come from. A label never has a value that callers choose, so
// that nobody can fill Prometheus.
type metric struct {
	name, help string
	kind       prometheus.ValueType // of values
	labels     []string
	values     func(o *observation, put func(value float64, labels ...string)) // nil: it is a histogram
	histograms func(o *observation, put func(h *hsmpool.Histogram, labels ...string))
}

// metrics is everything that keyward itself tells Prometheus.
var metrics = []metric{
	ofMembers("keyward_hsm_up", "Whether the HSM member serves (state up or half-open).", func(m *hsmpool.Status) float64 { return oneIf(serves(m.State)) }),
	{"keyward_hsm_state", "1 for the state that the HSM member is in, 0 for the others.", prometheus.GaugeValue, []string{"member", "state"},
		func(o *observation, put func(float64, ...string)) {
			for _, m := range o.members {
				for _, state := range memberStates {
					put(oneIf(m.State == state), m.Name, string(state))
				}
			}
		}, nil},
	ofMembers("keyward_hsm_sessions", "Open sessions of the HSM member.", func(m *hsmpool.Status) float64 { return float64(m.Sessions) }),
	ofMembers("keyward_hsm_lanes", "Sessions of the HSM member that may be at work at the same time.", func(m *hsmpool.Status) float64 { return float64(m.Lanes) }),
	ofMembers("keyward_hsm_window", "Jobs that may be in the hands of the HSM member's workers.", func(m *hsmpool.Status) float64 { return float64(m.Window) }),
	ofMembers("keyward_hsm_in_flight", "Jobs that are in the hands of the HSM member's workers.", func(m *hsmpool.Status) float64 { return float64(m.InFlight) }),
	ofMembers("keyward_hsm_keys_loaded", "Keys that the HSM member holds loaded.", func(m *hsmpool.Status) float64 { return float64(m.Keys) }),
	ofMembers("keyward_hsm_queue", "Jobs that wait, and that the HSM member could do.", func(m *hsmpool.Status) float64 { return float64(m.Queue) }),
	{"keyward_hsm_operations_total", "Jobs that the HSM member did, those with bad data included, and could not do.", prometheus.CounterValue, []string{"member", "result"},
		func(o *observation, put func(float64, ...string)) {
			for _, m := range o.members {
				put(float64(m.Done), m.Name, "done")
				put(float64(m.Failed), m.Name, "failed")
			}
		}, nil},
	countOfMembers("keyward_hsm_failovers_total", "Jobs that the HSM member could not do and another was given.", func(m *hsmpool.Status) uint64 { return m.Failovers }),
	countOfMembers("keyward_hsm_worker_restarts_total", "Worker processes of the HSM member that were started again.", func(m *hsmpool.Status) uint64 { return m.Restarts }),
	{"keyward_hsm_worker_ends_total", "Ends of workers of the HSM member: calls failed, the process crashed, a call was stuck, the process was silent, what it sent was garbled.",
		prometheus.CounterValue, []string{"member", "reason"}, func(o *observation, put func(float64, ...string)) {
			for _, m := range o.members {
				for reason, n := range m.Endings {
					put(float64(n), m.Name, reason)
				}
			}
		}, nil},
	{"keyward_hsm_errors_total", "PKCS#11 errors of the HSM member, those included that a second try mended.", prometheus.CounterValue, []string{"member", "code"},
		func(o *observation, put func(float64, ...string)) {
			for _, m := range o.members {
				for code, n := range m.Codes {
					put(float64(n), m.Name, code)
				}
			}
		}, nil},
	{"keyward_hsm_operation_seconds", "How long calls to the HSM member took.", 0, []string{"member"}, nil,
		func(o *observation, put func(*hsmpool.Histogram, ...string)) {
			for i := range o.members {
				put(&o.members[i].Latency, o.members[i].Name)
			}
		}},
	ofPool("keyward_pool_waiting", "Jobs that wait for an HSM.", prometheus.GaugeValue, func(t *hsmpool.Totals) float64 { return float64(t.Waiting) }),
	ofPool("keyward_pool_room", "The most jobs that may wait for an HSM.", prometheus.GaugeValue, func(t *hsmpool.Totals) float64 { return float64(t.Room) }),
	ofPool("keyward_pool_principals", "Principals who have jobs waiting.", prometheus.GaugeValue, func(t *hsmpool.Totals) float64 { return float64(t.Principals) }),
	ofPool("keyward_pool_throttled_total", "Jobs refused because the queue, or their principal's part of it, was full.", prometheus.CounterValue, func(t *hsmpool.Totals) float64 { return float64(t.Throttled) }),
	ofPool("keyward_pool_retries_total", "Second and third tries of jobs.", prometheus.CounterValue, func(t *hsmpool.Totals) float64 { return float64(t.Retries) }),
	ofPool("keyward_pool_retries_refused_total", "Tries of jobs that were not made because too many were made already.", prometheus.CounterValue, func(t *hsmpool.Totals) float64 { return float64(t.NoBudget) }),
	ofPool("keyward_pool_abandoned_total", "Jobs whose callers gave up before they ran.", prometheus.CounterValue, func(t *hsmpool.Totals) float64 { return float64(t.Abandoned) }),
	{"keyward_store_keys", "Keys in the store.", prometheus.GaugeValue, nil, func(o *observation, put func(float64, ...string)) { put(float64(o.store.Keys)) }, nil},
	{"keyward_store_commits_total", "Changes of the store since it was made.", prometheus.CounterValue, nil, func(o *observation, put func(float64, ...string)) { put(float64(o.store.Sequence)) }, nil},
	ofPKCS11("keyward_pkcs11_connections", "Connections of PKCS#11 clients.", func(s *pkcs11front.Stats) int { return s.Connections }),
	ofPKCS11("keyward_pkcs11_applications", "PKCS#11 clients: processes that have initialized the library, each time that they have.", func(s *pkcs11front.Stats) int { return s.Applications }),
	ofPKCS11("keyward_pkcs11_sessions", "Sessions of PKCS#11 clients.", func(s *pkcs11front.Stats) int { return s.Sessions }),
	{"keyward_pkcs11_refused_total", "Connections of PKCS#11 clients that were over a limit.", prometheus.CounterValue, nil, func(o *observation, put func(float64, ...string)) { put(float64(o.pkcs11.Refused)) }, nil},
	{"keyward_pkcs11_calls_total", "Calls of PKCS#11 clients, by what they got.", prometheus.CounterValue, []string{"call", "code"},
		func(o *observation, put func(float64, ...string)) {
			for _, c := range o.pkcs11.Calls {
				put(float64(c.N), c.Name, c.RV.String())
			}
		}, nil},
	{"keyward_xki_requests_total", "Requests of other key management services, by prefix and by what they got; without a prefix those to none.", prometheus.CounterValue, []string{"prefix", "operation", "result"},
		func(o *observation, put func(float64, ...string)) {
			for prefix, all := range o.served {
				for _, c := range all {
					put(float64(c.N), prefix, c.Operation, c.Result)
				}
			}
		}, nil},
	{"keyward_xki_connected", "Whether the external instance is Connected.", prometheus.GaugeValue, []string{"instance"}, func(o *observation, put func(float64, ...string)) {
		for _, c := range o.asked {
			put(oneIf(c.connected), c.instance)
		}
	}, nil},
	{"keyward_xki_calls_total", "Calls to the proxy of the external instance, by what came of them.", prometheus.CounterValue, []string{"instance", "operation", "result"},
		func(o *observation, put func(float64, ...string)) {
			for _, c := range o.asked {
				for _, n := range c.calls {
					put(float64(n.N), c.instance, n.Operation, n.Result)
				}
			}
		}, nil},
	{"keyward_build_info", "1, with the version of the daemon.", prometheus.GaugeValue, []string{"version"}, func(_ *observation, put func(float64, ...string)) { put(1, Version()) }, nil},
}

// memberStates are all states, for keyward_hsm_state.
var memberStates = []hsmpool.State{hsmpool.StateUp, hsmpool.StateHalfOpen, hsmpool.StateDraining, hsmpool.StateDown}

// ofPKCS11 is a row with one figure of the PKCS #11 door.
func ofPKCS11(name, help string, value func(*pkcs11front.Stats) int) metric {
	return metric{name, help, prometheus.GaugeValue, nil, func(o *observation, put func(float64, ...string)) { put(float64(value(&o.pkcs11))) }, nil}
}

// ofMembers is a row with one figure of each member.
func ofMembers(name, help string, value func(*hsmpool.Status) float64) metric {
	return metric{name, help, prometheus.GaugeValue, []string{"member"}, func(o *observation, put func(float64, ...string)) {
		for i := range o.members {
			put(value(&o.members[i]), o.members[i].Name)
		}
	}, nil}
}

// countOfMembers is a row with one count of each member.
func countOfMembers(name, help string, value func(*hsmpool.Status) uint64) metric {
	m := ofMembers(name, help, func(m *hsmpool.Status) float64 { return float64(value(m)) })
	m.kind = prometheus.CounterValue
	return m
}

// ofPool is a row with one figure of the pool.
func ofPool(name, help string, kind prometheus.ValueType, value func(*hsmpool.Totals) float64) metric {
	return metric{name, help, kind, nil, func(o *observation, put func(float64, ...string)) { put(value(&o.totals)) }, nil}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// collector is a prometheus.Collector of the table.
type collector struct {
	observe func() observation
	descs   []*prometheus.Desc // of the rows, in order
}

func newCollector(observe func() observation) *collector {
	c := &collector{observe: observe}
	for _, m := range metrics {
		c.descs = append(c.descs, prometheus.NewDesc(m.name, m.help, m.labels, nil))
	}
	return c
}

// Describe sends the rows' descriptions.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect sends the values of this moment.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	o := c.observe()
	for i, m := range metrics {
		if m.values != nil {
			m.values(&o, func(value float64, labels ...string) {
				out <- prometheus.MustNewConstMetric(c.descs[i], m.kind, value, labels...)
			})
			continue
		}
		m.histograms(&o, func(h *hsmpool.Histogram, labels ...string) {
			count, buckets := cumulative(h)
			out <- prometheus.MustNewConstHistogram(c.descs[i], count, h.Sum.Seconds(), buckets, labels...)
		})
	}
}

// cumulative gives the count of a histogram, and for each bound in seconds how many were at most that.
func cumulative(h *hsmpool.Histogram) (count uint64, buckets map[float64]uint64) {
	buckets = map[float64]uint64{}
	for i, n := range h.Counts {
		count += n
		if i < len(h.Bounds) {
			buckets[h.Bounds[i].Seconds()] = count
		}
	}
	return count, buckets
}

// quantile gives the duration that a share q of all stayed under, as if they were spread evenly within each bucket. Above the
// last bound it is the last bound.
func quantile(h *hsmpool.Histogram, q float64) time.Duration {
	var count uint64
	for _, n := range h.Counts {
		count += n
	}
	rank, seen := q*float64(count), 0.0
	below := time.Duration(0)
	for i, n := range h.Counts {
		if i >= len(h.Bounds) {
			break
		}
		if n > 0 && seen+float64(n) >= rank {
			return below + time.Duration((rank-seen)/float64(n)*float64(h.Bounds[i]-below))
		}
		seen += float64(n)
		below = h.Bounds[i]
	}
	if count == 0 {
		return 0
	}
	return below
}

// metricsHandler answers a scrape: the table, Go's runtime, and the process.
func metricsHandler(observe func() observation, log zerolog.Logger) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(observe), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// A figure that can't be had does not hide the others.
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, ErrorLog: metricsLog{log}})
}

// metricsLog logs what is wrong with a scrape.
type metricsLog struct{ log zerolog.Logger }

// Println logs one message.
func (l metricsLog) Println(v ...any) { l.log.Warn().Str("part", "metrics").Msg(fmt.Sprint(v...)) }

var _ prometheus.Collector = (*collector)(nil)
