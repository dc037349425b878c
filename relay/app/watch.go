package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

const (
	// settleTime is the debounce: how long the files must be unchanged, because an editor or a
	// ConfigMap changes them in several steps.
	settleTime = 250 * time.Millisecond

	// pollEvery is for changes without events: on network file systems, or when a watched folder
	// was replaced.
	pollEvery = 30 * time.Second
)

// watchFiles reloads when the content of a file that the configuration was read from
// changes, until ctx ends.
func (a *App) watchFiles(ctx context.Context) {
	w := watch{
		log: a.o.Log.With().Str("component", "watch").Logger(),
		files: func() []string {
			a.reloading.Lock()
			defer a.reloading.Unlock()
			return a.reads
		},
		check: func() { _, _ = a.reload(ctx, "watch", true) }, // Reload has logged it
	}
	var events chan fsnotify.Event
	var failures chan error
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn().Err(err).Msg(fmt.Sprintf("changes of files are seen only every %s: the system gives no notice of them. SIGHUP reloads at once", pollEvery))
	} else {
		defer notify.Close()
		w.add, w.remove, events, failures = notify.Add, notify.Remove, notify.Events, notify.Errors
	}
	w.run(ctx, events, failures)
}

// watch follows files by their folders: an editor that replaces a file by renaming, and a
// ConfigMap whose ..data link moves, would leave a watch on the old file.
type watch struct {
	log   zerolog.Logger
	files func() []string // files that the configuration depends on
	check func()          // reads the files, and reloads if they have changed

	add, remove func(folder string) error // nil without events

	trail trail
	stamp string // of the files, when they were last looked at
	blind bool   // it was logged that a folder cannot be watched
}

func (w *watch) run(ctx context.Context, events <-chan fsnotify.Event, failures <-chan error) {
	settle := time.NewTimer(settleTime) // changes since the files were read
	defer settle.Stop()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	w.follow()
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events:
			if !open {
				events = nil
			} else if w.trail.concerns(e.Name) {
				settle.Reset(settleTime)
			}
		case _, open := <-failures: // events were lost
			if !open {
				failures = nil
			} else {
				settle.Reset(settleTime)
			}
		case <-poll.C:
			if w.trail.stamp() != w.stamp {
				settle.Reset(settleTime)
			}
		case <-settle.C:
			w.stamp = w.trail.stamp()
			w.check()
			if w.follow() {
				settle.Reset(settleTime) // it may have changed before it was watched
			}
		}
	}
}

// follow watches the folders of the files. It reports whether one of them is new.
func (w *watch) follow() (more bool) {
	before := w.trail.folders
	w.trail = newTrail(w.files())
	for folder := range w.trail.folders {
		more = more || !before[folder]
		if w.add == nil {
			continue
		}
		// A folder that is watched already may have been replaced by another of the same name.
		if err := w.add(folder); err != nil && !errors.Is(err, os.ErrNotExist) && !w.blind {
			w.blind = true
			w.log.Warn().Err(err).Msg(fmt.Sprintf("changes in the folder %s are seen only every %s. SIGHUP reloads at once", folder, pollEvery))
		}
	}
	for folder := range before {
		if !w.trail.folders[folder] && w.remove != nil {
			_ = w.remove(folder) // it is gone, else
		}
	}
	return more
}

// trail is where changes of files are visible: the names of the files and of all symbolic links
// on the way to them, and the folders that hold these. Folders are without links.
type trail struct {
	names   map[string]bool
	folders map[string]bool
}

func newTrail(files []string) trail {
	t := trail{names: map[string]bool{}, folders: map[string]bool{}}
	been := map[string]bool{}
	for _, path := range files {
		if whole, err := filepath.Abs(path); err == nil {
			t.lead(whole, been)
		}
	}
	return t
}

// lead adds a path, and the paths that its links lead to.
func (t *trail) lead(path string, been map[string]bool) {
	if been[path] {
		return
	}
	been[path] = true
	t.note(path)
	for at := path; at != filepath.Dir(at); at = filepath.Dir(at) {
		target, err := os.Readlink(at)
		if err != nil {
			continue
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(at), target)
		}
		t.note(at)
		t.lead(filepath.Join(target, strings.TrimPrefix(path, at)), been)
	}
}

// note adds one name in its folder. If there is no folder, it adds the place where the folder
// would appear.
func (t *trail) note(path string) {
	parent := filepath.Dir(path)
	folder, err := filepath.EvalSymlinks(parent)
	switch {
	case err == nil:
		t.names[filepath.Join(folder, filepath.Base(path))], t.folders[folder] = true, true
	case parent != path:
		t.note(parent)
	}
}

// concerns tells whether what happened to a path can change the configuration: to a name of the
// trail, to a folder, or to a file that a folder of *.hcl files may bring.
func (t *trail) concerns(path string) bool {
	return t.names[path] || t.folders[path] || filepath.Ext(path) == ".hcl" && t.folders[filepath.Dir(path)]
}

// stamp changes when the metadata of a file or folder do.
func (t *trail) stamp() string {
	var b strings.Builder
	for _, set := range []map[string]bool{t.names, t.folders} {
		for _, path := range slices.Sorted(maps.Keys(set)) {
			if info, err := os.Stat(path); err == nil {
				fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano(), info.Mode())
			}
		}
	}
	return b.String()
}
