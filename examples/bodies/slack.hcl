# Alerts as messages of Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
# The URL is the secret, so nothing is signed.
endpoint "slack" {
  url    = env("SLACK_WEBHOOK_URL") # https://hooks.slack.com/services/…
  events = ["alert.*"]
  sign   = ["none"]

  body = {
    text = "${event.data.title} (${event.data.severity})" # for notifications
    blocks = [
      {
        type = "header"
        text = { type = "plain_text", text = substr(event.data.title, 0, 150) }
      },
      {
        type = "section"
        text = {
          type = "mrkdwn"
          # &, < and > steer Slack's own markup: https://docs.slack.dev/messaging/formatting-message-text
          text = replace(replace(replace(event.data.text, "&", "&amp;"), "<", "&lt;"), ">", "&gt;")
        }
      },
      {
        type     = "context"
        elements = [{ type = "mrkdwn", text = "${event.type} · ${event.id} · <!date^${event.timestamp}^{date_short_pretty} {time}|${event.time}>" }]
      },
    ]
  }
}
