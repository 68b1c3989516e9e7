"""The integration `sms`, as builders and catalogues show it."""

from __future__ import annotations

from permaflow.integration import Action, Credential, Integration

API_KEY = "sms-api-key"
"""The secret that holds what is entered."""

integration = Integration(
    type="sms",
    label="SMS",
    description="Send SMS messages",
    icon="message-square",
    form_fields=(
        Credential(
            id="apiKey",
            label="API Key",
            type="password",
            placeholder="Your SMS provider API key",
            config_key=API_KEY,
        ),
    ),
    actions=(
        Action(
            slug="send",
            label="Send SMS",
            description="Send an SMS message to a phone number",
            category="SMS",
            step="permaflow_sms.steps:send",
        ),
    ),
)
