// Package systemd speaks with systemd, as a service of Type=notify or notify-reload: the sockets
// that it opened for this process (sd_listen_fds(3)), and what it is told (sd_notify(3)). Without
// systemd every call does nothing.
package systemd

import (
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Variables are those of the environment that are for this process alone, not for its children.
var Variables = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}

// Sockets returns the sockets that systemd passed to this process. Children do not get them. The
// caller closes the files; they are there once.
func Sockets() []*os.File { return activation.Files(true) }

// Watchdog is how often Alive must be called, half of WatchdogSec=; 0 for never.
func Watchdog() (time.Duration, error) {
	every, err := daemon.SdWatchdogEnabled(false)
	return every / 2, err
}

// Ready says that requests are answered, after the start or after a reload. status is shown by
// systemctl status.
func Ready(status string) error { return notify(daemon.SdNotifyReady, status) }

// Reloading says that the configuration is read again; Ready must follow.
func Reloading() error {
	// Type=notify-reload needs the time.
	return notify(daemon.SdNotifyReloading+"\n"+strings.TrimSpace(daemon.SdNotifyMonotonicUsec()), "reading the configuration")
}

// Stopping says that the stop has begun.
func Stopping() error { return notify(daemon.SdNotifyStopping, "stopping") }

// Alive resets the watchdog.
func Alive() error {
	_, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog)
	return err
}

func notify(state, status string) error {
	line := strings.NewReplacer("\n", " ", "\r", " ").Replace(status) // a line feed would begin another assignment
	_, err := daemon.SdNotify(false, state+"\nSTATUS="+line)
	return err
}
