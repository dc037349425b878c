package deliver

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relay/policy"
)

func TestClassifyStatus(t *testing.T) {
	for status := 100; status <= 599; status++ {
		want, code := Refused, fmt.Sprintf("http_%d", status)
		switch {
		case status >= 200 && status <= 299:
			want, code = Delivered, ""
		case status >= 300 && status <= 399:
			code = "redirect_not_followed"
		case status == 410:
			want, code = Gone, "gone"
		case status == 408, status == 409, status == 425, status == 429, status >= 500:
			want = Retry
		}
		if got, gotCode := classify(status, "", defaults.On); got != want || gotCode != code {
			t.Errorf("classify(%d) = %s, %q, want %s, %q", status, got, gotCode, want, code)
		}
	}
}

func TestClassifyFailure(t *testing.T) {
	network := []string{
		"dns_not_found", "dns_failed", "egress_denied", "connection_refused", "connection_failed", "connection_reset",
		"tls_expired", "tls_wrong_name", "tls_unknown_authority", "tls_failed", "bad_response",
	}
	timeout := []string{"timeout", "connect_timeout"}
	for _, c := range []struct {
		name  string
		on    policy.Outcomes
		codes []string
		want  Outcome
	}{
		{"network retried", defaults.On, network, Retry},
		{"timeout retried", defaults.On, timeout, Retry},
		{"network final", retryOn("timeout"), network, Refused},
		{"timeout final", retryOn("network"), timeout, Refused},
		{"a body that cannot be made is final", retryOn("network", "timeout", "3xx", "4xx", "5xx"), []string{"body_error"}, Refused},
		{"our own defect is never the receiver's fault", policy.Outcomes{}, []string{"panic"}, Retry},
	} {
		for _, code := range c.codes {
			// A failure counts whatever status came before it.
			for _, status := range []int{0, 200, 503} {
				if got, gotCode := classify(status, code, c.on); got != c.want || gotCode != code {
					t.Errorf("%s: classify(%d, %q) = %s, %q, want %s", c.name, status, code, got, gotCode, c.want)
				}
			}
		}
	}
}

// The codes that attempts record and those that a file can name are the same.
func TestCodesAreThoseOfThePolicy(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "outcome.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(c.Names[0].Name, "code") {
			code, err := strconv.Unquote(c.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, code)
		}
		return true
	})
	// The first two are never the receiver's fault, the others are of answers.
	codes = slices.DeleteFunc(codes, func(c string) bool {
		return slices.Contains([]string{codePanic, codeBody, codeRedirect, codeGone, codeBatchRefused}, c)
	})
	all, err := policy.ParseOutcomes(codes)
	if err != nil {
		t.Fatal(err)
	}
	if got := all.List(); !slices.Equal(got, []string{"network", "timeout"}) {
		t.Errorf("with all of %q a file says %q: it knows others", codes, got)
	}
}
