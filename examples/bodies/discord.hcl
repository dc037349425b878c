# Alerts as messages of Discord: https://docs.discord.com/developers/resources/webhook#execute-webhook
# The URL is the secret, so nothing is signed.
endpoint "discord" {
  url    = env("DISCORD_WEBHOOK_URL") # https://discord.com/api/webhooks/…
  events = ["alert.*"]
  sign   = ["none"]

  body = {
    username         = "Alerts"
    allowed_mentions = { parse = [] } # an @everyone in the text stays text
    embeds = [{
      title       = substr(event.data.title, 0, 256)
      description = substr(event.data.text, 0, 4096)
      timestamp   = event.time
      color       = lookup({ critical = 14431557, warning = 16760576 }, event.data.severity, 7107965)
      fields      = [for name, value in try(event.data.details, {}) : { name = name, value = tostring(value), inline = true }]
      footer      = { text = event.id }
    }]
  }
}
