# Alerts as Adaptive Cards of Microsoft Teams, for the workflow "Post to a channel when a webhook request is
# received": https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
# The URL is the secret, so nothing is signed.
endpoint "teams" {
  url    = env("TEAMS_WORKFLOW_URL")
  events = ["alert.*"]
  sign   = ["none"]

  body = {
    type = "message"
    attachments = [{
      contentType = "application/vnd.microsoft.card.adaptive"
      content = {
        "$schema" = "http://adaptivecards.io/schemas/adaptive-card.json"
        type      = "AdaptiveCard"
        version   = "1.4"
        body = [
          {
            type   = "TextBlock"
            text   = event.data.title
            size   = "Large"
            weight = "Bolder"
            color  = event.data.severity == "critical" ? "Attention" : "Default"
            wrap   = true
          },
          { type = "TextBlock", text = event.data.text, wrap = true },
          {
            type = "FactSet"
            facts = [
              { title = "Device", value = event.key },
              { title = "Severity", value = event.data.severity },
              { title = "When", value = event.time },
            ]
          },
        ]
      }
    }]
  }
}
