# The built-in signatures as blocks. Copy one to change it; a test holds them to what
# the built-in ones send. webhook-id is written by Relay in every request.

signature "my-standard" {                # secrets: whsec_… (HMAC-SHA256, v1) or whsk_… (Ed25519, v1a)
  secret    = "whsec"
  encoding  = "base64"
  separator = " "                        # several secrets sign during a rotation: "v1,… v1,…"
  versions  = { "hmac-sha256" = "v1,", "ed25519" = "v1a," }
  signed    = "${id}.${timestamp}.${body}"
  headers   = {
    "webhook-timestamp" = timestamp
    "webhook-signature" = signature
  }
}

signature "my-svix" {
  secret    = "whsec"
  encoding  = "base64"
  separator = " "
  versions  = { "hmac-sha256" = "v1,", "ed25519" = "v1a," }
  signed    = "${id}.${timestamp}.${body}"
  headers   = {
    "svix-id"        = id
    "svix-timestamp" = timestamp
    "svix-signature" = signature
  }
}

signature "my-github" {
  rotation = "newest"                    # receivers know one signature only
  signed   = body
  headers  = {
    "X-GitHub-Event"      = type
    "X-GitHub-Delivery"   = id
    "X-Hub-Signature-256" = "sha256=${signature}"
  }
}

signature "my-github-sha1" {
  algorithm = "hmac-sha1"
  rotation  = "newest"
  signed    = body
  headers   = { "X-Hub-Signature" = "sha1=${signature}" }
}

signature "my-stripe" {
  separator = ",v1="
  signed    = "${timestamp}.${body}"
  headers   = { "Stripe-Signature" = "t=${timestamp},v1=${signature}" }
}

signature "my-slack" {
  rotation = "newest"
  signed   = "v0:${timestamp}:${body}"
  headers  = {
    "X-Slack-Request-Timestamp" = timestamp
    "X-Slack-Signature"         = "v0=${signature}"
  }
}

signature "my-shopify" {
  encoding = "base64"
  rotation = "newest"
  signed   = body
  headers  = {
    "X-Shopify-Topic"       = type
    "X-Shopify-Event-Id"    = id
    "X-Shopify-Webhook-Id"  = id
    "X-Shopify-Hmac-Sha256" = signature
  }
}

signature "my-rfc9421" {                 # each secret has lines of its own: members of one dictionary
  secret   = "whsec"
  encoding = "base64"
  signed   = "\"@method\": ${method}\n\"@target-uri\": ${url}\n\"content-digest\": sha-256=:${body_sha256_base64}:\n\"content-type\": ${content_type}\n\"webhook-id\": ${id}\n\"@signature-params\": (\"@method\" \"@target-uri\" \"content-digest\" \"content-type\" \"webhook-id\");created=${timestamp};keyid=\"${key_id}\";alg=\"${algorithm}\""
  headers  = {
    "Content-Digest"  = "sha-256=:${body_sha256_base64}:"
    "Signature-Input" = "sig${key_number}=(\"@method\" \"@target-uri\" \"content-digest\" \"content-type\" \"webhook-id\");created=${timestamp};keyid=\"${key_id}\";alg=\"${algorithm}\""
    "Signature"       = "sig${key_number}=:${signature}:"
  }
}
