package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relay/internal/testkit"
)

// Cleaners of folders, and people, remove and move files of a Relay that runs. It makes its
// socket again, says what is missing, and accepts nothing that a restart would not find.
func TestFilesAreTakenAway(t *testing.T) {
	t.Parallel() // it mostly waits
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(receiver.Close)
	l := startLimited(t, "true", receiver.URL)
	app := (&process{t: t, dir: l.dir}).client()
	ready := func() (status int, body string) {
		res, err := http.Get("http://" + l.tcp(t, l.ready.Admin) + "/readyz")
		testkit.Must(t, err)
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		testkit.Must(t, err)
		return res.StatusCode, string(text)
	}
	wantReady := func(want int, say string) {
		t.Helper()
		testkit.Until(t, "readiness", func() bool {
			status, body := ready()
			return status == want && strings.Contains(body, say)
		})
	}
	if !post(app, "evt_1") {
		t.Fatal("no 202 at the start")
	}

	testkit.Must(t, os.Remove(l.socket()))
	testkit.Until(t, "the socket made anew", func() bool { return post(app, "evt_2") })
	wantLines := func(text string, want int) { // the log comes a little after what it tells
		t.Helper()
		testkit.Until(t, text, func() bool { return l.log.Count(text) >= want })
		if n := l.log.Count(text); n != want {
			t.Errorf("%d lines of the log say %q, want %d", n, text, want)
		}
	}
	wantLines("is made again", 1)
	wantReady(200, "ready")

	// Something else is in its place.
	testkit.Until(t, "a folder in its place", func() bool {
		_ = os.Remove(l.socket()) // it may just have been made again
		return os.Mkdir(l.socket(), 0o700) == nil
	})
	wantReady(503, l.socket()+": there is something that is not a socket")
	testkit.Must(t, os.Remove(l.socket()))
	testkit.Until(t, "the socket made anew", func() bool { return post(app, "evt_3") })
	wantReady(200, "ready")

	folder := filepath.Join(l.dir, "outbox")
	testkit.Must(t, os.Rename(folder, folder+".moved"))
	wantReady(503, "the outbox folder "+folder+" is gone: put it back")
	if post(app, "evt_4") {
		t.Error("an event was accepted into a folder that is gone")
	}
	if _, err := os.Lstat(folder); err == nil {
		t.Error("an empty folder hides the loss")
	}
	testkit.Must(t, os.Rename(folder+".moved", folder))
	wantReady(200, "ready")
	if !post(app, "evt_4") {
		t.Error("the folder is back, and nothing is accepted")
	}
	wantLines("files of this Relay are not in their place", 2)
	wantLines("in their place again", 2)

	// No look every two seconds is waited for.
	testkit.Must(t, os.RemoveAll(folder))
	if post(app, "evt_5") {
		t.Error("an event was accepted into a folder that was removed")
	}
}
