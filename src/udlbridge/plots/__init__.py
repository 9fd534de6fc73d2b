"""Pictures of results. Nothing else imports matplotlib."""
