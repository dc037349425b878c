# Webhooks of a developer platform (projects, builds, deployments). Its receivers check
#
#   X-Trae-Signature-256: sha256=<hex HMAC-SHA256 of the body as it came>
#
#   export TRAE_URL=https://… TRAE_SECRET=… TRAE_AUTHORIZATION="Bearer …"

signature "trae" {
  rotation = "newest" # its receivers know one signature
  signed   = body
  headers = {
    "X-Trae-Signature-256" = "sha256=${signature}"
    "X-Trae-Event"         = type
    "X-Trae-Delivery"      = delivery
    "X-Trae-Webhook-ID"    = endpoint
    "X-Trae-Timestamp"     = timestamp # Unix seconds, of each attempt
  }
}

# Its retry policy by its own names: max_attempts 3, backoff_strategy exponential,
# initial_delay 1s, max_delay 60s; retry_on_status is >= 500, and network errors count.
policy "trae" {
  timeout {
    total = "30s"
  }
  retry {
    strategy        = "exponential" # initial × 2^(attempt-1)
    initial         = "1s"
    max             = "60s"
    max_attempts    = 3
    jitter          = 0
    on              = ["network", "timeout", "5xx"]
    max_retry_after = "60s" # no delay is longer than max_delay
  }
  breaker {
    enabled = false # it would move attempts to another time
  }
  disable {
    on_gone       = false # a 410 is final for its delivery only
    after_failing = "0s"
  }
}

# One endpoint for each webhook; its name is the webhook_id.
endpoint "wh-builds" {
  description = "Builds and deployments of the shop"
  enabled     = true # active
  url         = env("TRAE_URL")
  tenants     = ["shop"] # project id: the app names it as the tenant of its events
  events      = ["build.*", "deployment.*", "test.ping"]
  secrets     = [env("TRAE_SECRET")]
  sign        = ["trae"]
  policy      = "trae"

  headers = {
    "User-Agent"    = "Trae-Webhooks/1.0"
    "Authorization" = env("TRAE_AUTHORIZATION") # of this endpoint's own
    "X-Environment" = "production"
  }
  body = {
    event       = event.type
    timestamp   = event.time
    webhook_id  = endpoint.name
    delivery_id = delivery.id
    data        = event.data
  }
}

# backoff_strategy linear, a list in retry_on_status, retry_on_timeout false.
endpoint "wh-linear" {
  url     = env("TRAE_URL")
  events  = ["project.*"]
  secrets = [env("TRAE_SECRET")]
  sign    = ["trae"]
  policy  = "trae"
  headers = { "User-Agent" = "Trae-Webhooks/1.0" }
  body    = { event = event.type, timestamp = event.time, webhook_id = endpoint.name, delivery_id = delivery.id, data = event.data }
  retry {
    strategy = "linear" # initial × attempt
    on       = ["network", "429", "502", "503"]
  }
}

# backoff_strategy fixed.
endpoint "wh-fixed" {
  url     = env("TRAE_URL")
  events  = ["release.*"]
  secrets = [env("TRAE_SECRET")]
  sign    = ["trae"]
  policy  = "trae"
  headers = { "User-Agent" = "Trae-Webhooks/1.0" }
  body    = { event = event.type, timestamp = event.time, webhook_id = endpoint.name, delivery_id = delivery.id, data = event.data }
  retry {
    strategy = "fixed"
  }
}

# Health: an endpoint under 95 % success, or over 5 s on average. They go out as the events relay.alert.firing
# and relay.alert.resolved; relay alerts shows them.
alert "unhealthy" {
  on     = "success_rate"
  below  = 0.95
  window = "1h"
}
alert "slow" {
  on     = "mean"
  above  = "5s"
  window = "1h"
}
