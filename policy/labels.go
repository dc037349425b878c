package policy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"relay/config"
	"relay/internal/sorting"
)

// Label is what an operator says of an endpoint to find it by.
type Label struct{ Name, Value string }

const (
	maxLabels     = 16  // of an endpoint
	maxLabelValue = 128 // bytes
)

func (e *Endpoint) readLabels(b *config.Block) {
	for _, x := range b.TextMap("labels") {
		value := x.Value.Reveal()
		known := slices.ContainsFunc(e.Labels, func(l Label) bool { return l.Name == x.Key })
		at, err := x.KeyPlace, error(nil)
		switch {
		case len(x.Key) < 1 || len(x.Key) > 64 || !isName(x.Key):
			err = errors.New("the name of a label is 1 to 64 letters, digits, _ and -")
		case known:
			err = fmt.Errorf("the label %s stands twice", at.Quote(x.Key))
		case len(e.Labels) == maxLabels:
			err = fmt.Errorf("there are at most %d labels", maxLabels)
		case value == "" || len(value) > maxLabelValue || strings.ContainsFunc(value, unicode.IsControl):
			at, err = x.Place, fmt.Errorf("the value of a label has 1 to %d bytes and no control characters", maxLabelValue)
		}
		if err != nil {
			b.Fail(at, "Invalid labels", err.Error()+".")
			continue
		}
		e.Labels = append(e.Labels, Label{x.Key, value})
	}
	sorting.By(e.Labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
}

// labelSettings are the labels for Diff: one setting for each, or for all together if env() or
// file() gave a part of them, which may be a name.
func (e *Endpoint) labelSettings() []config.Setting {
	if len(e.Labels) > 0 && e.Hides("labels") {
		return []config.Setting{{Name: "labels", Value: fmt.Sprintf("%q", e.Labels)}}
	}
	var all []config.Setting
	for _, l := range e.Labels {
		all = append(all, config.Setting{Name: "labels." + l.Name, Value: strconv.Quote(l.Value)})
	}
	return all
}

// Labelled names the endpoints that have a label with this value, in the order of the file.
func (p *Policy) Labelled(name, value string) []string {
	var names []string
	for _, e := range p.Endpoints {
		if slices.Contains(e.Labels, Label{name, value}) {
			names = append(names, e.Name)
		}
	}
	return names
}
