# Webhooks as the guide of an identity provider wants them: one shape for all types, with
# a version; signed; retried with growing delays up to a maximum. Receivers check
#
#   X-Webhook-Signature: <hex HMAC-SHA256 of the body as it came>
#
#   export PRACTICE_URL=https://… PRACTICE_HEADER_URL=https://… PRACTICE_BATCH_URL=https://… PRACTICE_SECRET=…

signature "practice" {
  signed = body
  headers = {
    "X-Webhook-Signature" = signature
  }
}

policy "practice" {
  retry {
    strategy     = "exponential"
    initial      = "5s"
    multiplier   = 2
    max          = "1h"
    max_attempts = 12
  }
}

# The version in the body.
endpoint "practice" {
  url     = env("PRACTICE_URL")
  secrets = [env("PRACTICE_SECRET")]
  sign    = ["practice"]
  policy  = "practice"
  body = {
    version    = "1.0"
    event_type = event.type
    data       = event.data
  }
}

# Or in a header, and the default body: {"id","type","timestamp","data"}.
endpoint "practice-header" {
  url     = env("PRACTICE_HEADER_URL")
  secrets = [env("PRACTICE_SECRET")]
  sign    = ["practice"]
  policy  = "practice"
  headers = { "X-Webhook-Version" = "1.0" }
}

# Or several events in one request: an array of what each would be alone, signed once.
endpoint "practice-batch" {
  url     = env("PRACTICE_BATCH_URL")
  secrets = [env("PRACTICE_SECRET")]
  sign    = ["practice"]
  policy  = "practice"
  body = {
    version    = "1.0"
    id         = event.id # by which a receiver tells a repeat
    event_type = event.type
    data       = event.data
  }
  batch {
    max_events = 50
    max_wait   = "1s" # for more, from the first one on
  }
}

# Alerts on a high failure rate and on unusual traffic.
alert "failures" {
  on    = "success_rate"
  below = 0.9
}
alert "no-events" {
  on    = "silence" # no event was accepted for so long
  above = "1d"
}
alert "backlog" {
  on    = "backlog_count"
  above = 10000
}
