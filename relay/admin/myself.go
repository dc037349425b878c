package admin

import (
	"net/http"
	"time"
)

// Myself is what a request may do.
type Myself struct {
	Name string  `json:"name"` // as in the audit: "token support", "admin token", "uid 1000" of a process at the Unix socket, or "local" where no token is needed
	May  []Right `json:"may"`  // its rights

	// Whole is false if it is bound to tenants or endpoints: routes about the whole process are refused then.
	Whole     bool     `json:"whole"`
	Tenants   []string `json:"tenants,omitempty"`   // whose deliveries and endpoints alone are there; all if there are none
	Endpoints []string `json:"endpoints,omitempty"` // which alone are there; all if there are none

	Expires *time.Time `json:"expires,omitempty"` // of a link
}

func (a *api) accessRoutes() []route {
	return []route{{
		id: "getAccess", method: "GET", path: "/v1/access", verb: "relay access", summary: "Show what the token of this request may do",
		about:  "Any token may ask.",
		answer: Myself{}, handle: a.showAccess,
	}}
}

func (a *api) showAccess(w http.ResponseWriter, r *http.Request) {
	access := AccessOf(r.Context())
	m := Myself{Name: Who(r), May: Rights(), Whole: !access.bound()}
	if access != nil {
		m.May, m.Tenants, m.Endpoints = append([]Right{}, access.May...), access.Tenants, access.Endpoints
		if !access.Expires.IsZero() {
			m.Expires = &access.Expires
		}
	}
	answer(w, http.StatusOK, m)
}
