package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A file is for its owner, and for the group of a folder that is another user's.
func TestFileMode(t *testing.T) {
	us := User{UID: 5, Groups: []int{5, 2000}}
	for _, c := range []struct {
		name         string
		folder, file Facts
		want         fs.FileMode
	}{
		{"ours", Facts{5, 5, 0o700}, Facts{5, 5, 0o644}, 0o600},
		{"ours, open to a group", Facts{5, 2000, 0o2770}, Facts{5, 2000, 0o660}, 0o600},
		{"fsGroup", Facts{0, 2000, 0o2770}, Facts{5, 2000, 0o600}, 0o660},
		{"the former user's", Facts{4, 2000, 0o2775}, Facts{5, 2000, 0o600}, 0o660},
		{"a folder that does not hand on its group", Facts{0, 2000, 0o770}, Facts{5, 5, 0o600}, 0o600},
		{"a folder for everybody", Facts{0, 0, 0o1777}, Facts{5, 5, 0o600}, 0o600},
		{"a group that may not write", Facts{0, 2000, 0o2757}, Facts{5, 2000, 0o600}, 0o600},
	} {
		if got := FileMode(c.folder, c.file, us); got != c.want {
			t.Errorf("%s: %#o, want %#o", c.name, got, c.want)
		}
	}
}

// Advice never locks its user out: after it this user is the owner, or the group that it is
// in keeps its bits.
func TestWide(t *testing.T) {
	us := User{UID: 5, Groups: []int{5, 2000}}
	for _, c := range []struct {
		name string
		f    Facts
		us   User
		want string
	}{
		{"ours", Facts{5, 5, 0o700}, us, ""},
		{"ours, and the group's", Facts{5, 5, 0o750}, us, "/x has mode 0750: chmod go-rwx /x keeps other users out"},
		{"ours, and everybody's", Facts{5, 5, 0o707}, us, "/x has mode 0707: chmod go-rwx /x keeps other users out"},
		{"fsGroup", Facts{0, 2000, 0o2770}, us, ""},
		{"fsGroup, and everybody's", Facts{0, 2000, 0o2777}, us, "/x has mode 2777 and belongs to user 0: chmod o-rwx /x, by that user or root, keeps other users out"},
		{"another group's, and everybody's", Facts{4, 4, 0o777}, us, "/x has mode 0777 and belongs to user 4: this process, user 5, gets in as everybody can; run this as user 4, or, if Relay is to run as user 5, chown 5 /x, and then chmod go-rwx keeps other users out"},
		{"our group's for reading, and everybody's", Facts{4, 2000, 0o757}, us, "/x has mode 0757 and belongs to user 4: this process, user 5, gets in as everybody can; run this as user 4, or, if Relay is to run as user 5, chown 5 /x, and then chmod go-rwx keeps other users out"},
		{"root in another's", Facts{4, 4, 0o770}, User{UID: 0, Groups: []int{0}}, ""},
		{"root in another's that is everybody's", Facts{4, 4, 0o777}, User{UID: 0, Groups: []int{0}}, "/x has mode 0777 and belongs to user 4: chmod o-rwx /x, by that user or root, keeps other users out"},
	} {
		if got := Wide("/x", c.f, c.us); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestNarrow(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	folder, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o400, 0o600, 0o644, 0o666} {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%o", mode)))
		if err == nil {
			err = f.Chmod(mode)
		}
		if err != nil {
			t.Fatal(err)
		}
		wide, err := Narrow(f, folder)
		info, e := f.Stat()
		if err := errors.Join(err, e, f.Close()); err != nil || wide != "" || info.Mode().Perm() != 0o600 {
			t.Errorf("%#o: %q, %v, now %#o", mode, wide, err, info.Mode().Perm())
		}
	}
}

func TestExplain(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o750), os.WriteFile(filepath.Join(dir, "f"), nil, 0o640)); err != nil {
		t.Fatal(err)
	}
	us := Us()
	who := fmt.Sprintf("owner %d:%d", us.UID, us.Groups[0])
	for _, c := range []struct {
		err    error
		folder string
		want   []string
	}{
		{&fs.PathError{Op: "open", Path: "f", Err: syscall.EACCES}, dir, []string{
			"open f: permission denied: folder " + dir + " has " + who + ", mode 0750, " + filepath.Join(dir, "f") + " has " + who + ", mode 0640",
			fmt.Sprintf("this process is user %d of groups %d", us.UID, us.Groups[0]), fmt.Sprintf("; chmod -R u+rwX %s, ", dir), "fsGroup", "$STATE_DIRECTORY"}},
		{&fs.PathError{Op: "chmod", Path: filepath.Join(dir, "f"), Err: syscall.EPERM}, dir, []string{"operation not permitted: folder " + dir}},
		{&fs.PathError{Op: "mkdir", Path: filepath.Join(dir, "a"), Err: syscall.EACCES}, filepath.Join(dir, "a", "b"), []string{
			"folder " + dir + " has ", fmt.Sprintf("(mkdir -p %s/a/b && chown %d %s/a/b)", dir, us.UID, dir), "fsGroup", "$STATE_DIRECTORY"}},
		{&fs.PathError{Op: "mkdir", Path: "x", Err: syscall.EROFS}, dir, []string{"read-only file system", dir, "$STATE_DIRECTORY"}},
	} {
		got := Explain(c.err, c.folder)
		if !errors.Is(got, c.err) {
			t.Errorf("%v is no longer %v", got, c.err)
		}
		for _, want := range c.want {
			if !strings.Contains(got.Error(), want) {
				t.Errorf("%v lacks %q", got, want)
			}
		}
	}
	if got := ExplainShared(syscall.EACCES, dir).Error(); !strings.Contains(got, "folder "+dir+" has ") || !strings.Contains(got, "(mkdir -p "+dir+"/relay && chown ") || strings.Contains(got, "-R") {
		t.Error(got)
	}
	for _, err := range []error{nil, fs.ErrNotExist, errors.New("x")} {
		if got := Explain(err, dir); any(got) != any(err) {
			t.Errorf("%v became %v", err, got)
		}
	}
}
