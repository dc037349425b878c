ingest {
  unix "/run/relay/relay.sock" {}
}

outbox "redis" {
  url       = env("REDIS_URL")
  namespace = "shop"
  spool     = "/var/lib/relay/spool"   # takes events while Redis is away
}

endpoint "billing" {
  url     = "https://billing.example.com/hooks"
  events  = ["invoice.*"]
  secrets = [env("BILLING_SECRET")]
}
