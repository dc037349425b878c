# Endpoints that an app's customers make, through the app (portal.go).
#
#   export RELAY_ADMIN_TOKEN=$(openssl rand -hex 32) RELAY_LINK_KEY=$(openssl rand -hex 32) RELAY_SECRETS_KEY=$(openssl rand -hex 32)
#   relay serve --config examples/portal/relay.hcl

secrets_key = [env("RELAY_SECRETS_KEY")] # seals the customers' secrets in the outbox

admin {
  http     = env("RELAY_ADMIN_HTTP", "127.0.0.1:7071")
  token    = env("RELAY_ADMIN_TOKEN")  # the app's alone
  link_key = [env("RELAY_LINK_KEY")]   # signs what it gets for each customer
}

# What customers get. They cannot reach hosts in private networks, which is the default of egress.
policy "customer" {
  concurrency = 4
  rate_limit {
    limit = 20
  }
}

# What they may ask for.
runtime {
  policies   = ["customer"]
  overrides  = ["timeout"]
  per_tenant = 5
  https_only = true
  max_url    = 500
}
