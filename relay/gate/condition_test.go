package gate

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
)

func full() Condition {
	at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	return Condition{
		Paused:   &Halt{At: at, Code: ByOperator, Reason: "by someone"},
		Disabled: &Halt{At: at, Code: Gone, Reason: "gone", Receiver: "0123456789ab"},
		Breaker:  &Opening{Times: 3, Until: at, Good: 1, Prober: "a", ProberUntil: at},
		Hold:     &Hold{Since: at, Until: at},
		Failing:  &Trouble{Since: at, Last: at, Receiver: "0123456789ab"},
	}
}

func TestConditionText(t *testing.T) {
	for _, c := range []Condition{{}, {Hold: &Hold{Until: time.Unix(1, 0).UTC()}}, {Breaker: &Opening{Times: 1}}, full()} {
		text := c.Text()
		if len(text) > outbox.MaxNote || (len(text) == 0) != (c == Condition{}) {
			t.Errorf("%+v is %q", c, text)
		}
		got, err := ParseCondition(text)
		if diff := cmp.Diff(c, got); diff != "" || err != nil {
			t.Errorf("the text %s is read as another condition: %v %s", text, err, diff)
		}
	}
}

// A newer Relay's note is read by an older one, as far as that goes.
func TestConditionOfANewerRelay(t *testing.T) {
	c, err := ParseCondition([]byte(`{"paused":{"at":"2030-01-02T03:04:05Z","code":"operator","reason":"by someone","mood":"bad"},"drained":{"since":1}}`))
	if err != nil || c.Paused == nil || c.Paused.Reason != "by someone" {
		t.Errorf("read %+v, %v", c, err)
	}
}

func TestConditionThatIsNone(t *testing.T) {
	for _, text := range []string{" ", "[]", "{", `"paused"`, `{"hold":{"until":"soon"}}`, `{"breaker":{"times":"many"}}`, "\x00"} {
		if c, err := ParseCondition([]byte(text)); err == nil || c != (Condition{}) {
			t.Errorf("%q is read as %+v, %v", text, c, err)
		}
	}
}

func FuzzCondition(f *testing.F) {
	c := full()
	f.Add(c.Text())
	f.Add([]byte(""))
	f.Add([]byte("null"))
	f.Add([]byte(`{"hold":{"until":"9999-12-31T23:59:59-23:59"},"failing":{"since":"0000-01-01T00:00:00+23:59"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseCondition(text)
		if err != nil {
			return
		}
		again, err := ParseCondition(c.Text())
		if diff := cmp.Diff(c, again); diff != "" || err != nil {
			t.Fatalf("%q becomes another condition: %v %s", text, err, diff)
		}
	})
}
