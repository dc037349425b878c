package config

import (
	"errors"
	"slices"
	"strings"
)

// maxIndex is how many paths an index attribute has at most.
const maxIndex = 4

// maxIndexPath bounds a path, in bytes.
const maxIndexPath = 128

// Index reads a list of paths of fields of an event's data.
func (b *Block) Index(name string) []string {
	items, _ := b.Texts(name)
	var paths []string
	for _, item := range items {
		err := checkIndex(item.Value)
		switch {
		case err == nil && slices.Contains(paths, item.Value):
			err = errors.New("this path stands twice")
		case err == nil && len(paths) == maxIndex:
			err = errors.New("there are at most 4 paths: each costs room in the outbox for each event")
		}
		if err != nil {
			b.Fail(item.Place, "Invalid "+name, err.Error()+".")
			continue
		}
		paths = append(paths, item.Value)
	}
	return paths
}

func checkIndex(path string) error {
	rest, ok := strings.CutPrefix(path, "data.")
	if !ok {
		return errors.New(`write the path of a field of the event's data, like "data.deviceId"`)
	}
	if len(path) > maxIndexPath {
		return errors.New("the path is longer than 128 bytes")
	}
	for name := range strings.SplitSeq(rest, ".") {
		if name == "" || strings.ContainsFunc(name, notOfField) {
			return errors.New("names in the path are letters, digits, _ and -, with a dot between them")
		}
	}
	return nil
}

func notOfField(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
}
