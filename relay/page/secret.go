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
	Typed    bool   // a secret that was refused was typed, which is not shown again
	Sample   string // code that verifies; "" where the endpoint has another signature
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
	data := secretView{Endpoint: e.Name, Overlaps: overlaps(), Overlap: overlaps()[0], Sample: sampleFor(e)}
	var all registry.Secrets
	status := http.StatusOK
	if err := c.get(escaped("/v1/endpoints/%s/secret", e.Name), nil, &all); err != nil {
		data.Problem = c.refusalOf(err)
		if status = data.Problem.Status; status != http.StatusConflict {
			return err
		}
	}
	data.Secrets = all.Secrets
	if len(all.Secrets) == 0 || !strings.HasPrefix(all.Secrets[0].Secret, "whsec_") {
		data.Sample = "" // it is another kind of key
	}
	c.show(status, "secret", c.t("secret.title", e.Name), data)
	return nil
}

// verifySample verifies a signature of Standard Webhooks, as receivers of examples/verify do.
const verifySample = `import { createHmac, timingSafeEqual } from 'node:crypto';

// body is the body as it came, before it is parsed. secret is what is shown above.
function verify(secret, headers, body) {
  const [id, time] = [headers['webhook-id'], headers['webhook-timestamp']];
  if (Math.abs(Date.now() / 1000 - time) > 300) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
  const sum = createHmac('sha256', key).update(id + '.' + time + '.').update(body).digest();
  return headers['webhook-signature'].split(' ').some((one) => {
    const got = Buffer.from(one.replace(/^v1,/, ''), 'base64');
    return got.length === sum.length && timingSafeEqual(got, sum);
  });
}`

// sampleFor is the sample for an endpoint: of those that are signed as Standard Webhooks says, which is so unless its settings say otherwise.
func sampleFor(e *admin.Endpoint) string {
	s, _ := readSettings(e.Made.Settings)
	if sign, is := s["sign"].([]any); is && !slices.Contains(sign, any("standard")) {
		return ""
	}
	return verifySample
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
		c.show(r.Status, "secret", c.t("secret.title", name), secretView{Endpoint: name, Overlaps: overlaps(), Overlap: c.r.PostForm.Get("overlap"), Problem: r, Typed: c.r.PostForm.Get("secret") != ""})
		return nil
	})
}
