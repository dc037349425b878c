ingest {
  unix "/run/relay/relay.sock" {}      # relay.socket has this address, so systemd opens it
}

endpoint "billing" {
  url     = "https://billing.example.com/hooks"
  events  = ["invoice.*"]
  secrets = [file("${env("CREDENTIALS_DIRECTORY")}/billing")]
}
