# Alerts as a form, for receivers that take no JSON. Keys go out in this order; a value is a text.
endpoint "form" {
  url     = "https://legacy.example.com/cgi-bin/alert"
  events  = ["alert.*"]
  secrets = [env("FORM_SECRET")]

  content_type = "application/x-www-form-urlencoded"
  body = {
    id       = event.id
    type     = event.type
    title    = event.data.title
    severity = event.data.severity
    device   = try(event.data.device, "")
    details  = jsonencode(try(event.data.details, {}))
  }
}
