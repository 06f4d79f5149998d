package kms

import "testing"

func TestServiceOf(t *testing.T) {
	const web, db = "acs:ram::" + testAccount + ":role/web", "acs:ram::" + testAccount + ":role/db"
	s := &Service{}
	s.SetServices([]ServicePrincipal{
		{Code: "disks", Principals: []string{db}, Unit: "disks.service"},
		{Code: "volumes", Name: "Volumes", Principals: []string{db, web}},
		{Code: "shadow", Principals: []string{web}},
		{Code: "appliance", Principals: []string{root.Principal}, Unit: "agent.service"},
	})
	for _, row := range []struct {
		what  string
		actor Actor
		want  string
	}{
		{"a principal in its unit", Actor{Principal: db, Unit: "disks.service"}, "disks"},
		{"the same in another unit", Actor{Principal: db, Unit: "cron.service"}, "volumes"},
		{"the same from the network", Actor{Principal: db}, "volumes"},
		{"the first that fits", Actor{Principal: web}, "volumes"},
		{"a unit alone", Actor{Principal: user.Principal, Unit: "agent.service"}, ""},
		{"root in the unit", Actor{Principal: root.Principal, Unit: "agent.service"}, "appliance"},
		{"root elsewhere", *root, ""},
		{"another account's root", *other, ""},
		{"nobody", Actor{}, ""},
	} {
		got, ok := s.serviceOf(&row.actor)
		if got.Code != row.want || ok != (row.want != "") {
			t.Errorf("%s is %q, want %q", row.what, got.Code, row.want)
		}
	}
	if d, ok := s.serviceNamed("disks"); !ok || d.Name != "disks" {
		t.Errorf("a service without a name is called %q", d.Name)
	}
	s.SetServices(nil)
	if got, ok := s.serviceOf(&Actor{Principal: web}); ok {
		t.Errorf("after its row went, a caller is still %s", got.Code)
	}
	if _, ok := s.serviceNamed("disks"); ok {
		t.Error("a service that went is still found")
	}
}
