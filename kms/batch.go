package kms

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/kms/blob"
	"github.com/keyward/keyward/kms/kmswire"
)

// The batch forms do what the single actions do, with permission, key and material looked up once. One bad item fails
// alone. Items of hardware keys run on all HSM sessions at once, signatures of software keys on all cores.

func checkItems(n int) error {
	if n == 0 {
		return Missing("Items")
	}
	if n > kmswire.MaxBatchItems {
		return Invalid("Items", "%d items, at most %d are allowed in one batch; a stream has no such limit", n, kmswire.MaxBatchItems)
	}
	return nil
}

// dryItems gives what is wrong with the first bad item of a dry run, which has no results to say it in.
func (c *call) dryItems(n int, check func(i int) error) error {
	if !c.dryRun {
		return nil
	}
	for i := range n {
		if err := check(i); err != nil {
			return err
		}
	}
	return nil
}

// itemError is what stands in the place of an item that failed. Goroutines of one call may use it at the same time.
func (c *call) itemError(err error) *kmswire.ItemError {
	c.failed.Add(1)
	return &kmswire.ItemError{Err: AsError(err)}
}

// BatchEncrypt encrypts each item under the primary version.
func (s *Service) BatchEncrypt(ctx context.Context, actor *Actor, req *kmswire.BatchEncryptRequest) (*kmswire.BatchEncryptResponse, error) {
	return audited(s, ctx, actor, actEncrypt, req.DryRun, func(c *call) (*kmswire.BatchEncryptResponse, error) {
		c.event.Items = len(req.Items)
		if err := checkItems(len(req.Items)); err != nil {
			return nil, err
		}
		if err := c.dryItems(len(req.Items), func(i int) error { return checkPlaintext(req.Items[i].Plaintext) }); err != nil {
			return nil, err
		}
		g, m, err := c.sealWith(req.KeyID)
		if err != nil {
			return nil, err
		}
		defer m.release()
		out := &kmswire.BatchEncryptResponse{KeyID: g.key.ID, KeyVersionID: m.version.ID, Items: make([]kmswire.BatchEncryptResult, len(req.Items))}
		c.encryptAll(m, len(req.Items), func(i int) ([]byte, map[string]string, error) {
			in := &req.Items[i]
			if in.EncryptionContext == nil {
				return in.Plaintext, req.EncryptionContext, checkPlaintext(in.Plaintext)
			}
			return in.Plaintext, in.EncryptionContext, checkPlaintext(in.Plaintext)
		}, func(i int, ciphertext []byte, err error) {
			if err != nil {
				out.Items[i].ItemError = c.itemError(err)
				return
			}
			out.Items[i].CiphertextBlob = ciphertext
		})
		return out, nil
	})
}

// encryptAll encrypts n items: in gives each, or why it can't be; done takes each result, in no particular order.
// Goroutines of an external key's batch call both at the same time.
func (c *call) encryptAll(m *material, n int, in func(int) ([]byte, map[string]string, error), done func(int, []byte, error)) {
	if m.outside != nil {
		atOnce(n, externalAtOnce, func(i int) {
			plaintext, encryptionContext, err := in(i)
			var ciphertext []byte
			if err == nil {
				ciphertext, err = c.encryptOutside(m, plaintext, encryptionContext)
			}
			done(i, ciphertext, err)
		})
		return
	}
	if m.aes != nil {
		for i := range n {
			plaintext, encryptionContext, err := in(i)
			if err == nil {
				var st sealing
				if st, err = m.prepare(len(plaintext), encryptionContext); err == nil {
					done(i, m.aes.Seal(st.out, st.nonce, plaintext, st.aad), nil)
					continue
				}
			}
			done(i, nil, err)
		}
		return
	}
	if err := m.calls.take(c.ctx, uint64(n)); err != nil {
		for i := range n {
			done(i, nil, err)
		}
		return
	}
	jobs := jobList{}
	heads := make([][]byte, 0, n)
	for i := range n {
		plaintext, encryptionContext, err := in(i)
		if err == nil {
			var st sealing
			if st, err = m.prepare(len(plaintext), encryptionContext); err == nil {
				jobs.add(i, m.encryptJob(c.actor, st, plaintext))
				heads = append(heads, st.out)
				continue
			}
		}
		done(i, nil, err)
	}
	c.pool.DoAll(c.ctx, jobs.jobs)
	for j, job := range jobs.jobs {
		if job.Err != nil {
			done(jobs.item[j], nil, poolError(job.Err, nil))
		} else {
			done(jobs.item[j], append(heads[j], job.Out...), nil)
		}
	}
}

// jobList is the jobs of those items that got as far as the HSM.
type jobList struct {
	jobs []*hsmpool.Job
	item []int // of the job at the same place
}

func (l *jobList) add(item int, j *hsmpool.Job) {
	l.jobs = append(l.jobs, j)
	l.item = append(l.item, item)
}

// BatchDecrypt opens blobs, of one key or many. Permission is checked once for each key.
func (s *Service) BatchDecrypt(ctx context.Context, actor *Actor, req *kmswire.BatchDecryptRequest) (*kmswire.BatchDecryptResponse, error) {
	return audited(s, ctx, actor, actDecrypt, req.DryRun, func(c *call) (*kmswire.BatchDecryptResponse, error) {
		c.event.Items = len(req.Items)
		if err := checkItems(len(req.Items)); err != nil {
			return nil, err
		}
		b := batchDecrypt{call: c, req: req, versions: map[string]*versionUse{},
			uses: make([]*versionUse, len(req.Items)), out: make([]kmswire.BatchDecryptResult, len(req.Items))}
		defer b.release()
		defer b.note()
		for i := range req.Items {
			if err := b.item(i); err != nil {
				if c.dryRun {
					return nil, err
				}
				b.fail(i, err)
			}
		}
		if err := c.dryRunEnd(); err != nil {
			return nil, err
		}
		if len(b.jobs.jobs) > 0 { // blobs of software keys are open by now
			c.pool.DoAll(ctx, b.jobs.jobs)
		}
		b.fromOutside()
		for j, job := range b.jobs.jobs {
			i := b.jobs.item[j]
			if job.Err != nil {
				b.fail(i, poolError(job.Err, badBlob()))
			} else {
				b.out[i].Plaintext = job.Out
			}
		}
		return &kmswire.BatchDecryptResponse{Items: b.out}, nil
	})
}

// batchDecrypt is one batch under way.
type batchDecrypt struct {
	*call
	req      *kmswire.BatchDecryptRequest
	versions map[string]*versionUse // by version ID
	uses     []*versionUse          // of the items; nil where the blob names no key
	out      []kmswire.BatchDecryptResult
	jobs     jobList
	away     []awayItem // those of external keys
}

// awayItem is an item that another key manager decrypts.
type awayItem struct {
	item      int
	m         *material
	body, aad []byte
}

// fromOutside decrypts the items of external keys.
func (b *batchDecrypt) fromOutside() {
	failed := make([]error, len(b.away))
	atOnce(len(b.away), externalAtOnce, func(i int) {
		a := &b.away[i]
		b.out[a.item].Plaintext, failed[i] = b.decryptOutside(a.m, a.body, a.aad)
	})
	for i, err := range failed {
		if err != nil {
			b.fail(b.away[i].item, err)
		}
	}
}

// versionUse is what the batch found out about one version: its key, authorized, and its material, or why not.
type versionUse struct {
	grant
	keyID, versionID string
	m                *material
	err              error

	items, failed int // for the audit
}

// item decrypts item i, or notes its job.
func (b *batchDecrypt) item(i int) error {
	in := &b.req.Items[i]
	if len(in.CiphertextBlob) == 0 {
		return Missing("CiphertextBlob")
	}
	h, n, err := blob.Parse(in.CiphertextBlob)
	if err != nil {
		return badBlob()
	}
	use := b.versions[h.VersionID]
	if use == nil {
		use = &versionUse{keyID: h.KeyID, versionID: h.VersionID}
		b.versions[h.VersionID] = use
		if use.grant, use.err = b.grantOf(h, actDecrypt); use.err == nil && !b.dryRun {
			use.m, use.err = b.blobVersion(use.grant, h)
		}
	}
	use.items++
	b.uses[i] = use
	if use.err != nil || b.dryRun {
		return use.err
	}
	if err := b.charge(use.grant, 1); err != nil {
		return err
	}
	if !use.m.made(h) {
		return badBlob()
	}
	o := opened{use.grant, h, in.CiphertextBlob[:n], in.CiphertextBlob[n:]}
	encryptionContext := in.EncryptionContext
	if encryptionContext == nil {
		encryptionContext = b.req.EncryptionContext
	}
	aad, err := associated(nil, o.head, encryptionContext)
	if err != nil {
		return err
	}
	b.out[i].KeyID, b.out[i].KeyVersionID = o.key.ID, h.VersionID
	switch {
	case use.m.hsm != nil:
		b.jobs.add(i, use.m.decryptJob(b.actor, o, aad))
		return nil
	case use.m.outside != nil:
		b.away = append(b.away, awayItem{i, use.m, o.body, aad})
		return nil
	}
	if b.out[i].Plaintext, err = use.m.aes.Open(nil, h.Nonce, o.body, aad); err != nil {
		return badBlob()
	}
	return nil
}

// fail gives item i an error for its result.
func (b *batchDecrypt) fail(i int, err error) {
	b.out[i] = kmswire.BatchDecryptResult{ItemError: b.itemError(err)}
	if use := b.uses[i]; use != nil {
		use.failed++
	}
}

// note gives the audit every version that the batch named. If there is one, it is in the call's event; if there are
// more, each has an event besides the call's, which then names none.
func (b *batchDecrypt) note() {
	b.event.KeyID, b.event.VersionID = "", ""
	for _, versionID := range slices.Sorted(maps.Keys(b.versions)) {
		use := b.versions[versionID]
		if len(b.versions) == 1 {
			b.event.KeyID, b.event.VersionID = use.keyID, use.versionID
			break
		}
		e := b.event
		e.KeyID, e.VersionID, e.Items = use.keyID, use.versionID, use.items
		e.noteFailed(use.failed)
		b.also(e, use.err)
	}
}

func (b *batchDecrypt) release() {
	for _, use := range b.versions {
		if use.m != nil {
			use.m.release()
		}
	}
}

// BatchSign signs SHA-256 digests with one version.
func (s *Service) BatchSign(ctx context.Context, actor *Actor, req *kmswire.BatchSignRequest) (*kmswire.BatchSignResponse, error) {
	return audited(s, ctx, actor, actAsymmetricSign, req.DryRun, func(c *call) (*kmswire.BatchSignResponse, error) {
		c.event.Items = len(req.Items)
		if err := checkItems(len(req.Items)); err != nil {
			return nil, err
		}
		if err := c.dryItems(len(req.Items), func(i int) error { return checkDigest(req.Items[i].Digest) }); err != nil {
			return nil, err
		}
		g, m, err := c.signWith(req.KeyID, req.KeyVersionID, req.Algorithm)
		if err != nil {
			return nil, err
		}
		defer m.release()
		out := make([]kmswire.BatchSignResult, len(req.Items))
		set := func(i int, value []byte, err error) {
			if err != nil {
				out[i].ItemError = c.itemError(err)
				return
			}
			out[i].Value = value
		}
		if m.private != nil {
			parallel(ctx, len(out), func(i int) {
				err := checkDigest(req.Items[i].Digest)
				var value []byte
				if err == nil {
					value, err = c.sign(m, req.Algorithm, req.Items[i].Digest)
				}
				set(i, value, err)
			})
			if err := ctx.Err(); err != nil {
				return nil, &Error{Code: Canceled, Err: err}
			}
		} else {
			jobs := jobList{}
			for i := range out {
				if err := checkDigest(req.Items[i].Digest); err != nil {
					set(i, nil, err)
					continue
				}
				jobs.add(i, m.signJob(actor, req.Algorithm, req.Items[i].Digest))
			}
			s.pool.DoAll(ctx, jobs.jobs)
			for j, job := range jobs.jobs {
				if job.Err != nil {
					set(jobs.item[j], nil, poolError(job.Err, nil))
					continue
				}
				value, err := m.signature(req.Algorithm, job.In, job.Out)
				set(jobs.item[j], value, err)
			}
		}
		return &kmswire.BatchSignResponse{KeyID: g.key.ID, KeyVersionID: m.version.ID, Items: out}, nil
	})
}

// BatchVerify checks signatures with one version.
func (s *Service) BatchVerify(ctx context.Context, actor *Actor, req *kmswire.BatchVerifyRequest) (*kmswire.BatchVerifyResponse, error) {
	return audited(s, ctx, actor, actAsymmetricVerify, req.DryRun, func(c *call) (*kmswire.BatchVerifyResponse, error) {
		c.event.Items = len(req.Items)
		if err := checkItems(len(req.Items)); err != nil {
			return nil, err
		}
		if err := c.dryItems(len(req.Items), func(i int) error { return checkVerify(req.Items[i].Digest, req.Items[i].Value) }); err != nil {
			return nil, err
		}
		_, m, err := c.signWith(req.KeyID, req.KeyVersionID, req.Algorithm)
		if err != nil {
			return nil, err
		}
		defer m.release()
		out := make([]kmswire.BatchVerifyResult, len(req.Items))
		parallel(ctx, len(out), func(i int) {
			in := &req.Items[i]
			if err := checkVerify(in.Digest, in.Value); err != nil {
				out[i].ItemError = c.itemError(err)
				return
			}
			ok, err := m.public.Verify(req.Algorithm, in.Digest, in.Value)
			if err != nil {
				out[i].ItemError = c.itemError(err)
				return
			}
			out[i].Value = &ok
		})
		if err := ctx.Err(); err != nil {
			return nil, &Error{Code: Canceled, Err: err}
		}
		return &kmswire.BatchVerifyResponse{Items: out}, nil
	})
}

// BatchGenerateDataKey makes up to 1,000 data keys.
func (s *Service) BatchGenerateDataKey(ctx context.Context, actor *Actor, req *kmswire.BatchGenerateDataKeyRequest) (*kmswire.BatchGenerateDataKeyResponse, error) {
	act := actGenerateDataKey
	if req.WithoutPlaintext {
		act = actGenerateDataKeyWithoutPlaintext
	}
	return audited(s, ctx, actor, act, req.DryRun, func(c *call) (*kmswire.BatchGenerateDataKeyResponse, error) {
		c.event.Items = req.Count
		if req.Count < 1 || req.Count > kmswire.MaxBatchItems {
			return nil, Invalid("Count", "it must be 1 to %d", kmswire.MaxBatchItems)
		}
		size, err := dataKeySize(req.KeySpec, req.NumberOfBytes)
		if err != nil {
			return nil, err
		}
		g, m, err := c.sealWith(req.KeyID)
		if err != nil {
			return nil, err
		}
		defer m.release()
		keys := newDataKeys(req.Count, size)
		out := make([]kmswire.BatchDataKey, req.Count)
		c.encryptAll(m, req.Count, func(i int) ([]byte, map[string]string, error) {
			return keys[i], req.EncryptionContext, nil
		}, func(i int, ciphertext []byte, err error) {
			if err != nil {
				clear(keys[i])
				out[i].ItemError = c.itemError(err)
				return
			}
			out[i].CiphertextBlob = ciphertext
			if !req.WithoutPlaintext {
				out[i].Plaintext = keys[i]
			}
		})
		if req.WithoutPlaintext {
			for _, k := range keys {
				clear(k)
			}
		}
		return &kmswire.BatchGenerateDataKeyResponse{KeyID: g.key.ID, KeyVersionID: m.version.ID, Items: out}, nil
	})
}

// parallel calls do for 0..n-1 on as many goroutines as there are cores, and returns when all have ended. It stops
// handing out work when ctx ends.
func parallel(ctx context.Context, n int, do func(int)) {
	atOnce(n, runtime.GOMAXPROCS(0), func(i int) {
		if ctx.Err() == nil {
			do(i)
		}
	})
}

// atOnce calls do for 0..n-1, so many at the same time, and returns when all have ended.
func atOnce(n, workers int, do func(int)) {
	var next atomic.Int64
	run := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			do(i)
		}
	}
	var wg sync.WaitGroup
	for range min(n, workers) - 1 {
		wg.Go(run)
	}
	run()
	wg.Wait()
}
