package page

import (
	"net/http"
	"slices"
	"strings"

	"relay/relay/admin"
	"relay/relay/registry"
)

// secretView is the data of the screen of an endpoint's secrets.
type secretView struct {
	Endpoint string
	Secrets  []registry.Secret
	Overlaps []string
	Overlap  string // that was chosen
	Problem  *refusal
	Typed    bool           // a secret that was refused was typed, which is not shown again
	Schemes  []verification // how to verify, for each signature of the endpoint
	Public   bool           // with the public half of the secret
}

// showSecret shows the secrets of an endpoint. The audit has that they were read.
func (c *call) showSecret() error {
	if err := c.needs(admin.Secrets); err != nil {
		return err
	}
	e, err := c.madeEndpoint()
	if e == nil {
		return err
	}
	data := secretView{Endpoint: e.Name, Overlaps: overlaps(), Overlap: overlaps()[0]}
	var all registry.Secrets
	status := http.StatusOK
	if err := c.get(escaped("/v1/endpoints/%s/secret", e.Name), nil, &all); err != nil {
		data.Problem = c.refusalOf(err)
		if status = data.Problem.Status; status != http.StatusConflict {
			return err
		}
	}
	data.Secrets = all.Secrets
	if len(all.Secrets) > 0 {
		data.Schemes = verifications(e, all.Secrets[0].Public != "")
	}
	data.Public = slices.ContainsFunc(data.Schemes, func(v verification) bool { return strings.HasSuffix(v.How, asymmetric) })
	c.show(status, "secret", c.t("secret.title", c.calledOf(e)), data)
	return nil
}

// overlaps are how long the old secrets can sign along.
func overlaps() []string { return []string{"24h", "1h", "7d", "0"} }

func (c *call) rotateSecret() error {
	name := c.r.PathValue("name")
	err := c.act(func() (step, error) {
		ask := admin.Rotation{Secret: c.r.PostForm.Get("secret"), Overlap: c.r.PostForm.Get("overlap")}
		if !slices.Contains(overlaps(), ask.Overlap) {
			ask.Overlap = overlaps()[0]
		}
		if err := c.send(http.MethodPost, escaped("/v1/endpoints/%s/secret/rotate", name), ask, nil); err != nil {
			return step{}, err
		}
		return step{escaped("/endpoints/%s/secret", name), "rotated"}, nil
	})
	return c.formAgain(err, func(r *refusal) error {
		c.show(r.Status, "secret", c.t("secret.title", c.called(name)), secretView{Endpoint: name, Overlaps: overlaps(), Overlap: c.r.PostForm.Get("overlap"), Problem: r, Typed: c.r.PostForm.Get("secret") != ""})
		return nil
	})
}
