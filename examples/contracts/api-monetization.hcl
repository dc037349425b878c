# Notices of an API management: how much of its quota a developer has used. They are
# not signed; the URL is the secret.
#
#   export MONETIZATION_URL=https://…

policy "monetization" {
  # 3 s to connect and 3 s to read. total is both together, so no attempt takes longer
  # than either of them.
  timeout {
    connect = "3s"
    total   = "3s"
  }

  # A 5xx is tried again three times, 5 minutes apart. Any other answer is final, and so
  # is none.
  retry {
    schedule        = ["5m", "5m", "5m"]
    jitter          = 0
    on              = ["5xx"]
    max_retry_after = "0s"
  }
  breaker {
    enabled = false # it would move attempts to another time
  }
  disable {
    on_gone       = false
    after_failing = "0s"
  }
}

endpoint "quota-notice" {
  url    = env("MONETIZATION_URL")
  events = ["quota.used"]
  sign   = ["none"]
  policy = "monetization"

  # event.data:
  #   {"organization":"acme","developer":"dev@example.com","products":["maps","routes"],"rate_plan":"gold",
  #    "quota":10000,"percent_used":80,"reason":"threshold","reset_date":"2026-12-01"}
  body = {
    organization   = event.data.organization
    developer      = event.data.developer
    products       = event.data.products
    rate_plan      = event.data.rate_plan
    quota_target   = event.data.quota
    percent_used   = event.data.percent_used
    trigger_time   = event.time
    trigger_reason = event.data.reason
    reset_date     = try(event.data.reset_date, null)
  }
}

# The same, but only when a quota is used to one of these percentages: once for each of them
# and each developer, rate plan and period, not on every event above it. An event
# that crosses several is one notice.
endpoint "quota-threshold" {
  url    = env("MONETIZATION_URL")
  events = ["quota.counted"]
  sign   = ["none"]
  policy = "monetization"

  crossing {
    value = event.data.percent_used
    at    = concat([50, 75], range(80, 121, 10)) # single values, and 80 to 120 by 10
    by    = [event.data.organization, event.data.developer, event.data.rate_plan, try(event.data.reset_date, "")]
  }
  body = {
    organization   = event.data.organization
    developer      = event.data.developer
    products       = event.data.products
    rate_plan      = event.data.rate_plan
    quota_target   = event.data.quota
    percent_used   = event.data.percent_used
    trigger_time   = event.time
    trigger_reason = event.data.reason
    reset_date     = try(event.data.reset_date, null)
  }
}

# Nothing is sent while an endpoint is disabled: its deliveries are held, and go out when
# it is enabled.
endpoint "quota-notice-disabled" {
  enabled = false
  url     = env("MONETIZATION_URL")
  events  = ["quota.used"]
  sign    = ["none"]
  policy  = "monetization"
}
