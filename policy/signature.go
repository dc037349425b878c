package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"relay/config"
	"relay/policy/sign"
)

// unsigned is the name in sign = ["none"].
const unsigned = "none"

func (d *decoder) readSignatures(blocks []*config.Block) {
	for _, b := range blocks {
		checkName(b)
		if b.Name == unsigned || slices.Contains(sign.BuiltinNames(), b.Name) {
			b.Fail(b.Label(), "Reserved name", fmt.Sprintf("%q is the name of a built-in signature. Choose another.", b.Name))
		}
		d.schemes[b.Name] = readScheme(b)
		d.schemeNames = append(d.schemeNames, b.Name)
	}
}

// readScheme returns nil if the block has a problem.
func readScheme(b *config.Block) *sign.Scheme {
	defer b.Done()
	spec := sign.Spec{Name: b.Name}
	b.String("algorithm", &spec.Algorithm)
	b.String("encoding", &spec.Encoding)
	b.String("secret", &spec.Secret)
	b.String("rotation", &spec.Rotation)
	b.String("separator", &spec.Separator)
	for _, e := range b.Map("versions") {
		if spec.Versions == nil {
			spec.Versions = map[string]string{}
		}
		spec.Versions[e.Key] = e.Value.Reveal()
	}

	signed, _ := b.Expr("signed")
	ok := b.Require("signed", `signed = "${timestamp}.${body}" or the like.`)
	if ok {
		template, err := parseTemplate(signed)
		if err != nil {
			b.Invalid("signed", err.Error())
			ok = false
		}
		spec.Signed = template
	}
	pairs, hasHeaders := b.Pairs("headers")
	ok = b.Require("headers", `headers = { "X-Signature" = signature } or the like.`) && hasHeaders && ok
	for _, p := range pairs {
		template, err := parseTemplate(p.Expr)
		if err != nil {
			b.Fail(p.Place, "Invalid headers", err.Error())
			ok = false
		}
		if reservedForSchemes(p.Key) {
			b.Fail(p.KeyPlace, "Reserved header", fmt.Sprintf("%s is written by Relay or by HTTP itself.", p.KeyPlace.Quote(p.Key)))
			ok = false
		}
		spec.Headers = append(spec.Headers, sign.HeaderSpec{Name: p.Key, Value: template})
	}
	if !ok {
		return nil
	}
	scheme, err := sign.New(spec)
	if e, is := errors.AsType[*sign.SpecError](err); is {
		reason := e.Reason
		if len(b.Drawn()) > 0 { // it may quote any of them
			reason = "what env() or file() gives does not fit. " + signatureHelp
		}
		b.Invalid(e.Field, reason)
		return nil
	}
	return scheme
}

// signatureHelp is the advice if the reason is not shown.
const signatureHelp = "Write the values out to be told why: nothing of a signature block is secret."

// reservedForSchemes: headers that every request has. webhook-id is one of them; the other
// headers of Standard Webhooks belong to schemes.
func reservedForSchemes(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "webhook-id", "content-type", "user-agent":
		return true
	}
	return reservedHeader(name) && !strings.HasPrefix(name, "webhook-")
}

var errTemplate = errors.New(`write text and variables only, like "${timestamp}.${body}"; functions, indexes and operators cannot stand here`)

// parseTemplate converts an expression of text and variables to data, which is filled in for each
// attempt without HCL.
func parseTemplate(e hclsyntax.Expression) (sign.Template, error) {
	switch e := e.(type) {
	case *hclsyntax.TemplateExpr:
		var t sign.Template
		for _, part := range e.Parts {
			sub, err := parseTemplate(part)
			if err != nil {
				return nil, err
			}
			t = append(t, sub...)
		}
		return t, nil
	case *hclsyntax.TemplateWrapExpr:
		return parseTemplate(e.Wrapped)
	case *hclsyntax.LiteralValueExpr:
		if e.Val.Type() != cty.String || e.Val.IsNull() {
			return nil, errTemplate
		}
		if e.Val.AsString() == "" {
			return nil, nil
		}
		return sign.Template{{Literal: e.Val.AsString()}}, nil
	case *hclsyntax.ScopeTraversalExpr:
		if len(e.Traversal) != 1 {
			return nil, errTemplate
		}
		return sign.Template{{Variable: e.Traversal[0].(hcl.TraverseRoot).Name}}, nil
	}
	return nil, errTemplate
}

// signers makes the signers that an endpoint's sign and secrets ask for.
func (d *decoder) signers(b *config.Block) []*sign.Signer {
	secrets, given := b.Secrets("secrets")
	values := make([]string, len(secrets))
	for i, s := range secrets {
		values[i] = s.Value
	}

	names, ok := b.Texts("sign")
	if !ok {
		names = []config.Item{{Value: "standard", Place: b.Place()}}
	}
	if len(names) == 0 {
		b.Invalid("sign", `it is empty. To send without a signature write sign = ["none"].`)
		return nil
	}
	var schemes []*sign.Scheme
	var seen []string
	for _, name := range names {
		if slices.Contains(seen, name.Value) {
			b.Fail(name.Place, "Duplicate signature", fmt.Sprintf("%q stands twice.", name.Place.Quote(name.Value)))
			continue
		}
		seen = append(seen, name.Value)
		if name.Value == unsigned {
			if len(names) > 1 {
				b.Fail(name.Place, "Invalid sign", `"none" cannot stand beside others.`)
			}
			return nil
		}
		if s := d.scheme(b, name); s != nil {
			schemes = append(schemes, s)
		}
	}
	if !given {
		b.Require("secrets", `secrets = [env("…")], or sign = ["none"] to send without a signature.`)
		return nil
	}
	var signers []*sign.Signer
	for _, scheme := range schemes {
		s, err := sign.NewSigner(scheme, values)
		if e, is := errors.AsType[*sign.SecretError](err); is {
			at, quotes := b.At("secrets"), ""
			if e.Index < len(secrets) {
				at, quotes = secrets[e.Index].Place, config.InQuotes(secrets[e.Index].Value)
			}
			b.Fail(at, "Invalid secrets", fmt.Sprintf("endpoint %q, signature %q: %s%s", b.Name, scheme.Name(), e.Reason, quotes))
			continue
		}
		for _, name := range s.Names() {
			if signedHeader(signers, name) {
				b.Fail(b.At("sign"), "Duplicate header", "two of the signatures write the same header.")
			}
		}
		signers = append(signers, s)
	}
	return signers
}

// scheme finds a signature by name; nil if there is none or it is invalid.
func (d *decoder) scheme(b *config.Block, name config.Item) *sign.Scheme {
	if s, ok := d.schemes[name.Value]; ok {
		return s
	}
	if s, ok := sign.Builtin(name.Value); ok {
		d.schemes[name.Value] = s // all endpoints share it
		return s
	}
	known := slices.Concat(d.schemeNames, sign.BuiltinNames(), []string{unsigned})
	b.Fail(name.Place, "Unknown signature", fmt.Sprintf("known are %s.%s", strings.Join(known, ", "), config.Suggest(name.Value, known)))
	return nil
}
