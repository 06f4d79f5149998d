package daemon

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/daemon/config"
)

const tenant = "2000000000000002"

// newSharedAppliance is one of two accounts; uid 4343 is the root of the second.
func newSharedAppliance(t *testing.T) *appliance {
	t.Helper()
	return newAppliance(t, func(dir string) string {
		path := filepath.Join(dir, devConfig)
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, append([]byte(`accounts = ["`+config.DefaultAccount+`", "`+tenant+"\"]\n"), text...), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return "\n[[peer]]\nuid = 4343\nprincipal = \"" + rootOf(tenant) + "\"\n"
	})
}

// TestTenantDoesNotRunTheAppliance calls as the root of an account that is not the first: the appliance is everybody's, and its
// administrator is one.
func TestTenantDoesNotRunTheAppliance(t *testing.T) {
	a := newSharedAppliance(t)
	for _, rt := range routes {
		if rt.action == "" || rt.action == byService {
			continue
		}
		rec := a.as(4343, rt.method, strings.Replace(rt.path, "{name}", "east", 1), "")
		if rec.Code != http.StatusForbidden || !strings.Contains(rec.Body.String(), rootOf(config.DefaultAccount)) {
			t.Errorf("%s %s: %d, %s", rt.method, rt.path, rec.Code, rec.Body)
		}
		if got := a.audited(t, rt.action); !slices.Equal(got, []string{"denied by policy"}) {
			t.Errorf("%s %s is audited as %s", rt.method, rt.path, got)
		}
	}
	// Its own principals it manages, those of others it does not see.
	own, others := "acs:ram::"+tenant+":user/x", "acs:ram::"+config.DefaultAccount+":user/x"
	if rec := a.as(4343, http.MethodPost, admin.PrincipalsPath, `{"arn":"`+own+`"}`); rec.Code != http.StatusOK {
		t.Errorf("a user of its own: %d, %s", rec.Code, rec.Body)
	}
	theirs, err := a.client.CreateAccessKey(t.Context(), rootOf(config.DefaultAccount))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{http.MethodPost, admin.PrincipalsPath, `{"arn":"` + others + `"}`, http.StatusForbidden},
		{http.MethodGet, admin.PrincipalsPath + "?account=" + config.DefaultAccount, "", http.StatusForbidden},
		{http.MethodGet, admin.PrincipalPath + "?arn=" + others, "", http.StatusForbidden},
		{http.MethodPut, admin.PINPath + "?arn=" + rootOf(config.DefaultAccount), "0123456789", http.StatusForbidden},
		{http.MethodDelete, admin.PINPath + "?arn=" + rootOf(config.DefaultAccount), "", http.StatusForbidden},
		{http.MethodPost, admin.AccessKeysPath, `{"principal":"` + rootOf(config.DefaultAccount) + `"}`, http.StatusForbidden},
		{http.MethodGet, admin.AccessKeysPath + "?principal=" + rootOf(config.DefaultAccount), "", http.StatusForbidden},
		{http.MethodPost, strings.Replace(admin.DisableAccessKeyPath, "{id}", theirs.ID, 1), "", http.StatusNotFound},
		{http.MethodPost, strings.Replace(admin.RotateAccessKeyPath, "{id}", theirs.ID, 1), "", http.StatusNotFound},
		{http.MethodDelete, strings.Replace(admin.AccessKeyPath, "{id}", theirs.ID, 1), "", http.StatusNotFound},
		{http.MethodPost, admin.SimulatePath, `{"principal":"` + others + `","action":"kms:ListKeys"}`, http.StatusForbidden},
	} {
		if rec := a.as(4343, c.method, c.path, c.body); rec.Code != c.want {
			t.Errorf("%s %s: %d, %s; want %d", c.method, c.path, rec.Code, rec.Body, c.want)
		}
	}
}

// TestTenantStatus holds what a caller of another account sees of the appliance: not other accounts' instances, nor the names of
// their keys and records.
func TestTenantStatus(t *testing.T) {
	a := newSharedAppliance(t)
	why := "the row of kst-secret is wrong"
	a.server.refused.Store(&why)
	var st admin.Status
	rec := a.as(4343, http.MethodGet, admin.StatusPath, "")
	if err := json.Unmarshal(rec.Body.Bytes(), &st); err != nil || rec.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", rec.Code, rec.Body, err)
	}
	if len(st.Instances) != 0 || st.State != admin.Degraded || len(st.Problems) != 1 || strings.Contains(rec.Body.String(), "kst-") {
		t.Errorf("a tenant sees %s", rec.Body)
	}
	if rec := a.as(4242, http.MethodGet, admin.StatusPath, ""); !strings.Contains(rec.Body.String(), why) || !strings.Contains(rec.Body.String(), `"id":"kst-`) {
		t.Errorf("a user of the first account sees %s", rec.Body)
	}
}
