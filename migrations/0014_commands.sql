-- Calendars of profiles, and what somebody had agents do at once.
ALTER TABLE radarflow.profiles
    ADD COLUMN "cron" text,
    ADD COLUMN "time_zone" text NOT NULL DEFAULT 'UTC',
    ADD COLUMN "pause_during" text[] NOT NULL DEFAULT '{}';
ALTER TABLE radarflow.profiles
    ALTER COLUMN "time_zone" DROP DEFAULT,
    ALTER COLUMN "pause_during" DROP DEFAULT;

ALTER TABLE radarflow.jobs
    ADD COLUMN "cron" text;

CREATE TABLE radarflow.commands (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "command_id" text NOT NULL,
    "run_id" text NOT NULL,
    "profile" text NOT NULL,
    "agent_id" text NOT NULL,
    "command_type" text NOT NULL,
    "state" text NOT NULL,
    "reason" text,
    "targets" bigint NOT NULL,
    "asked" text[] NOT NULL,
    "progress" bigint NOT NULL,
    "result" text,
    "requested_by" text NOT NULL,
    "requested_at" timestamptz NOT NULL,
    "expires_at" timestamptz NOT NULL,
    "sent_at" timestamptz,
    "acknowledged_at" timestamptz,
    "finished_at" timestamptz,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "command_id")
);

ALTER TABLE radarflow.commands ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.commands FOR SELECT USING (tenant_id = radarflow.reader_tenant());
