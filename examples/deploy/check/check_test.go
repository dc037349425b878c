// Package deploy checks the examples of deployments with the types and tools of those who read
// them. It is a module of its own, so that Relay does not depend on them.
package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	strict "sigs.k8s.io/yaml"
)

// binary is Relay, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "relay-deploy-")
	if err == nil {
		binary = filepath.Join(dir, "relay")
		build := exec.Command("go", "build", "-o", binary, "./relay")
		build.Dir = "../../.."
		var out []byte
		if out, err = build.CombinedOutput(); err != nil {
			err = fmt.Errorf("build relay: %w\n%s", err, out)
		}
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// checked runs relay check on the text of a file; secrets are those that the examples name.
func checked(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	secret := "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	file := filepath.Join(dir, "relay.hcl")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "billing"), []byte(secret+"\n"), 0o600))
	cmd := exec.Command(binary, "check", file)
	cmd.Env = append(os.Environ(), "BILLING_SECRET="+secret, "REDIS_URL=redis://redis:6379", "CREDENTIALS_DIRECTORY="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "warning") {
		t.Errorf("relay check: %v\n%s\n%s", err, out, text)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", path))
	must(t, err)
	return text
}

// serves checks the arguments of relay serve by its own parser, with a broken file in place of
// the real one: a wrong flag ends with exit code 2, the file with 1.
func serves(t *testing.T, args []string) {
	t.Helper()
	if len(args) == 0 || args[0] != "serve" {
		t.Errorf("the arguments of Relay are %q, want serve first", args)
		return
	}
	file := filepath.Join(t.TempDir(), "relay.hcl")
	must(t, os.WriteFile(file, []byte("{"), 0o600))
	args = append(slices.Clone(args), "--config", file)
	for i, a := range args {
		if filepath.Base(a) == "relay.hcl" {
			args[i] = file
		}
	}
	out, err := exec.Command(binary, args...).CombinedOutput()
	if e := new(exec.ExitError); !errors.As(err, &e) || e.ExitCode() != 1 {
		t.Errorf("relay %q: %v\n%s", args, err, out)
	}
}

// pod is what the checks need of a manifest with Pods.
type pod struct {
	meta   metav1.ObjectMeta
	spec   corev1.PodSpec
	claims []corev1.PersistentVolumeClaim
}

func TestKubernetes(t *testing.T) {
	files, err := filepath.Glob("../kubernetes/*.yaml")
	must(t, err)
	if len(files) != 3 {
		t.Fatalf("found %q", files)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			pods, configs := manifest(t, read(t, filepath.Join("kubernetes", filepath.Base(file))))
			if len(pods) != 1 || len(configs) != 1 {
				t.Fatalf("%d workloads and %d ConfigMaps", len(pods), len(configs))
			}
			for _, p := range pods {
				checkPod(t, p, configs)
			}
		})
	}
}

// manifest decodes strictly, by Kubernetes' own types.
func manifest(t *testing.T, text []byte) (pods []pod, configs map[string]corev1.ConfigMap) {
	configs = map[string]corev1.ConfigMap{}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		must(t, strict.Unmarshal(document, &kind))
		decode := func(into any) { must(t, strict.UnmarshalStrict(document, into)) }
		switch kind.APIVersion + " " + kind.Kind {
		case "v1 ConfigMap":
			var c corev1.ConfigMap
			decode(&c)
			configs[c.Name] = c
			checked(t, c.Data["relay.hcl"])
		case "apps/v1 StatefulSet":
			var s appsv1.StatefulSet
			decode(&s)
			selects(t, s.Spec.Selector, s.Spec.Template)
			pods = append(pods, pod{s.ObjectMeta, s.Spec.Template.Spec, s.Spec.VolumeClaimTemplates})
		case "apps/v1 Deployment":
			var d appsv1.Deployment
			decode(&d)
			selects(t, d.Spec.Selector, d.Spec.Template)
			pods = append(pods, pod{d.ObjectMeta, d.Spec.Template.Spec, nil})
		case "batch/v1 Job":
			var j batchv1.Job
			decode(&j)
			pods = append(pods, pod{j.ObjectMeta, j.Spec.Template.Spec, nil})
		default:
			t.Errorf("unknown kind %v", kind)
		}
	}
	return pods, configs
}

func selects(t *testing.T, s *metav1.LabelSelector, template corev1.PodTemplateSpec) {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	must(t, err)
	if set := labels.Set(template.Labels); selector.Empty() || !selector.Matches(set) {
		t.Errorf("the selector %v does not select the Pods with %v", selector, set)
	}
}

// checkPod checks what the types do not: names that refer to others, and Relay's arguments.
func checkPod(t *testing.T, p pod, configs map[string]corev1.ConfigMap) {
	volumes := map[string]bool{}
	for _, v := range p.spec.Volumes {
		volumes[v.Name] = true
		if v.ConfigMap != nil {
			if _, known := configs[v.ConfigMap.Name]; !known {
				t.Errorf("volume %s: no ConfigMap %s", v.Name, v.ConfigMap.Name)
			}
		}
	}
	for _, c := range p.claims {
		volumes[c.Name] = true
	}
	relays := 0
	for _, c := range slices.Concat(p.spec.InitContainers, p.spec.Containers) {
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("container %s mounts %s, which is no volume", c.Name, m.Name)
			}
		}
		if c.Image != "relay" {
			continue
		}
		relays++
		serves(t, c.Args)
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			if probe != nil {
				verb(t, probe.Exec.Command)
			}
		}
	}
	if relays != 1 {
		t.Errorf("%d containers of Relay in %s, want 1", relays, p.meta.Name)
	}
}

// verb checks that the image has a command.
func verb(t *testing.T, command []string) {
	t.Helper()
	if command[0] != "/relay" {
		t.Errorf("the image has no %s", command[0])
	}
	if out, err := exec.Command(binary, append(slices.Clone(command[1:]), "--help")...).CombinedOutput(); err != nil {
		t.Errorf("%q: %v\n%s", command, err, out)
	}
}

func TestCompose(t *testing.T) {
	dir, err := filepath.Abs("../compose")
	must(t, err)
	project, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml")}},
		Environment: types.Mapping{"BILLING_SECRET": "x"},
	}, func(o *loader.Options) { o.SetProjectName("shop", true) })
	must(t, err)
	if n := len(project.Services); n != 3 {
		t.Errorf("%d services, want 3", n)
	}
	if _, err := os.Stat(filepath.Join(project.Services["relay"].Build.Context, "Dockerfile")); err != nil {
		t.Errorf("the image is built from nothing: %v", err)
	}
	checked(t, string(read(t, "compose/relay.hcl")))
}

// The units are judged by systemd's own verifier, and by its measure of exposure (0 is the least).
func TestSystemd(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("this test needs systemd-analyze: make setup installs it")
	}
	dir := t.TempDir()
	for _, unit := range []string{"relay.service", "relay.socket"} {
		text := strings.ReplaceAll(string(read(t, "systemd/"+unit)), "/usr/local/bin/relay", binary)
		must(t, os.WriteFile(filepath.Join(dir, unit), []byte(text), 0o600))
	}
	for _, args := range [][]string{
		{"verify", "--recursive-errors=no", "--man=no", dir + "/relay.service", dir + "/relay.socket"},
		{"security", "--offline=true", "--threshold=25", "--no-pager", dir + "/relay.service"},
	} {
		out, err := exec.Command(tool, args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
	for line := range strings.Lines(string(read(t, "systemd/relay.service"))) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=/usr/local/bin/relay "); ok {
			serves(t, strings.Fields(strings.TrimSuffix(command, " --config /etc/relay/relay.hcl")))
		}
	}
	checked(t, string(read(t, "systemd/relay.hcl")))
}
