# Alerts as events of PagerDuty: https://developer.pagerduty.com/docs/events-api-v2
# alert.resolved closes what an alert with the same key has opened.
endpoint "pagerduty" {
  url    = "https://events.pagerduty.com/v2/enqueue"
  events = ["alert.*"]
  sign   = ["none"] # the routing key says who we are

  body = {
    routing_key  = env("PAGERDUTY_ROUTING_KEY")
    event_action = event.type == "alert.resolved" ? "resolve" : "trigger"
    dedup_key    = event.key != "" ? event.key : event.id
    payload = {
      summary        = substr(event.data.title, 0, 1024)
      source         = try(event.data.device, "relay")
      severity       = event.data.severity # critical, error, warning or info
      timestamp      = event.time
      class          = event.type
      custom_details = event.data
    }
  }
}
