# Webhooks of a video-analytics SaaS. Its receivers check
#
#   X-SaaS-Signature: sha256=<hex HMAC-SHA256 of "<X-SaaS-Timestamp>.<body>">
#
# where many of them take JSON.stringify(JSON.parse(body)) for the body.
#
#   export SAAS_ALERTS_URL=https://… SAAS_ALERTS_SECRET=…   # a secret is 16 to 128 characters

signature "saas" {
  algorithm = "hmac-sha256"
  encoding  = "hex"
  signed    = "${timestamp}.${body}"
  headers = {
    "X-SaaS-Signature"   = "sha256=${signature}"
    "X-SaaS-Timestamp"   = timestamp # Unix seconds, of each attempt
    "X-SaaS-Event"       = type
    "X-SaaS-Delivery-Id" = delivery # the same on every attempt
  }
}

policy "saas" {
  timeout {
    total = "5s" # the sender lets its customers choose from 1s to 30s
  }
  retry {
    strategy     = "exponential"
    initial      = "10s"
    max          = "10m"
    max_attempts = 4 # the first one and 3 retries; 1 to 6 for 0 to 5 retries
  }
  egress {
    allow_plaintext = false # https:// only, also where the policy "default" allows more
  }
}

# Fields of the data by which the log is searched.
event_type "alert_triggered" {
  index = ["data.device", "data.scene"]
}

# A customer that chose some event types. There are analysis_started, analysis_stopped,
# analysis_error, alert_triggered, device_offline, device_online, device_analysis_error,
# node_offline, node_online, node_error, quota_warning, quota_exceeded,
# billing_cycle_completed, maintenance_scheduled and system_announcement.
endpoint "saas-alerts" {
  url     = env("SAAS_ALERTS_URL")
  events  = ["alert_triggered", "device_offline", "device_online"]
  secrets = [env("SAAS_ALERTS_SECRET")]
  sign    = ["saas"]
  policy  = "saas"

  # The default body, written out.
  body = {
    id        = event.id
    type      = event.type
    timestamp = event.time # RFC 3339, UTC
    data      = event.data
  }
  ecmascript = true # what JSON.stringify(JSON.parse(body)) leaves as it is
}

# A customer that chose none gets all types.
endpoint "saas-everything" {
  url        = env("SAAS_EVERYTHING_URL")
  secrets    = [env("SAAS_EVERYTHING_SECRET")]
  sign       = ["saas"]
  policy     = "saas"
  ecmascript = true
}

# Slack, Teams and PagerDuty as receivers of the same events: ../bodies.
