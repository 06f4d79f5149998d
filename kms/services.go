package kms

import "slices"

// ServicePrincipal is a service that uses keys for others, such as a storage service that encrypts volumes. It is
// declared in the configuration, so that associations can name it and it can have keys of its own.
type ServicePrincipal struct {
	Code       string   // lower-case letters, digits and hyphens; never changes, as it is in records and aliases
	Name       string   // for people; empty: the code
	Entry      string   // where a person sees what the service protects with a key: a URL, a command or any text
	Principals []string // the callers that are this service
	Unit       string   // only those of them that run in this systemd unit; empty: all
}

// serviceTable finds services by principal. It is immutable; SetServices makes a new one.
type serviceTable struct {
	byPrincipal map[string][]*ServicePrincipal // in order of declaration
	byCode      map[string]*ServicePrincipal
}

func newServiceTable(declared []ServicePrincipal) *serviceTable {
	t := &serviceTable{byPrincipal: map[string][]*ServicePrincipal{}, byCode: map[string]*ServicePrincipal{}}
	for _, d := range declared {
		d.Principals = slices.Clone(d.Principals)
		if d.Name == "" {
			d.Name = d.Code
		}
		t.byCode[d.Code] = &d
		for _, p := range d.Principals {
			t.byPrincipal[p] = append(t.byPrincipal[p], &d)
		}
	}
	return t
}

// of gives the service that an actor is, nil if it is none. The first declared one that fits is taken.
func (t *serviceTable) of(a *Actor) *ServicePrincipal {
	for _, d := range t.byPrincipal[a.Principal] {
		if d.Unit == "" || d.Unit == a.Unit {
			return d
		}
	}
	return nil
}

// SetServices replaces the declared services. Calls that run go on with the old ones.
func (s *Service) SetServices(declared []ServicePrincipal) {
	s.services.Store(newServiceTable(declared))
}

// serviceOf says which declared service an actor is. It costs one look into a map.
func (s *Service) serviceOf(a *Actor) (ServicePrincipal, bool) {
	if d := s.services.Load().of(a); d != nil {
		return *d, true
	}
	return ServicePrincipal{}, false
}

// serviceNamed finds a declared service by its code.
func (s *Service) serviceNamed(code string) (ServicePrincipal, bool) {
	if d := s.services.Load().byCode[code]; d != nil {
		return *d, true
	}
	return ServicePrincipal{}, false
}
