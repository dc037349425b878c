# Relay as a sidecar task of the app's group. It starts before the app (prestart), and Nomad stops
# it after the app. The outbox is in the group's ephemeral disk, which moves with the allocation.
job "shop" {
  datacenters = ["dc1"]
  type        = "service"

  group "shop" {
    count = 2

    ephemeral_disk {
      size    = 8192
      sticky  = true
      migrate = true
    }

    task "relay" {
      driver       = "docker"
      kill_timeout = "30s"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image   = "relay"
        args    = ["serve", "--config", "/local/relay.hcl"]
        volumes = ["../alloc/data/relay:/var/lib/relay"]
      }

      env {
        STATE_DIRECTORY = "/var/lib/relay"
      }

      template {
        destination = "secrets/relay.env"
        env         = true
        data        = <<-EOT
          BILLING_SECRET={{ with nomadVar "nomad/jobs/shop" }}{{ .billing_secret }}{{ end }}
        EOT
      }

      template {
        destination = "local/relay.hcl"
        change_mode = "noop"                # Relay sees the change by itself
        data        = <<-EOT
          ingest {
            http "127.0.0.1:7070" {}
          }

          endpoint "billing" {
            url     = "https://billing.example.com/hooks"
            events  = ["invoice.*"]
            secrets = [env("BILLING_SECRET")]
          }
        EOT
      }

      resources {
        cpu        = 100
        memory     = 64
        memory_max = 256
      }
    }

    task "shop" {
      driver = "docker"

      config {
        image = "example.com/shop"
      }

      env {
        RELAY_URL = "http://127.0.0.1:7070"
      }
    }

    network {
      mode = "bridge"                       # both tasks have the same loopback
    }
  }
}
