# Webhooks of a manager of chat groups. Its receivers check
#
#   X-Webhook-Signature: sha256=<hex HMAC-SHA256 of JSON.stringify(JSON.parse(body))>
#
#   export GROUP_MANAGER_URL=https://… GROUP_MANAGER_SECRET=…

signature "group-manager" {
  signed = body
  headers = {
    "X-Webhook-Signature" = "sha256=${signature}"
  }
}

policy "group-manager" {
  timeout {
    total = "30s"
  }

  # Any 2xx is a success, everything else is tried again at these times exactly, and
  # after the last one the delivery is failed. So nothing else may move an attempt:
  # no jitter, no Retry-After, no breaker, no endpoint that is taken for dead.
  retry {
    schedule        = ["1m", "5m", "30m"]
    jitter          = 0
    on              = ["network", "timeout", "3xx", "4xx", "5xx"]
    max_retry_after = "0s"
  }
  breaker {
    enabled = false
  }
  disable {
    after_failing = "0s"
  }
  egress {
    allow_plaintext = false # https:// only
  }
}

endpoint "group-manager" {
  url     = env("GROUP_MANAGER_URL")
  events  = ["message.received", "member.joined", "member.left", "file.uploaded"]
  secrets = [env("GROUP_MANAGER_SECRET")]
  sign    = ["group-manager"]
  policy  = "group-manager"

  body = {
    event     = event.type
    timestamp = event.time
    data      = event.data
  }
  ecmascript = true
}

# The same for endpoints that are made on the page or by the admin API: they name
# sign, policy and body "group-manager". Their secrets need secrets_key.
body "group-manager" {
  body = {
    event     = event.type
    timestamp = event.time
    data      = event.data
  }
  ecmascript = true
}
runtime {
  policies   = ["group-manager"]
  https_only = true
}
