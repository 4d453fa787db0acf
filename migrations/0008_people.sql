-- What people state of each other and of the program: users, roles, tokens, sessions, receivers. Readers
-- see receivers alone.

ALTER TABLE radarflow.device_groups
    ADD COLUMN "owner" text;

CREATE TABLE radarflow.users (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "display_name" text NOT NULL,
    "email" text,
    "role" text NOT NULL,
    "partitions" text[] NOT NULL,
    "disabled" boolean NOT NULL,
    "has_password" boolean NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.users ENABLE ROW LEVEL SECURITY;

CREATE TABLE radarflow.roles (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "description" text NOT NULL,
    "permissions" text[] NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.roles ENABLE ROW LEVEL SECURITY;

CREATE TABLE radarflow.api_tokens (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "token_id" text NOT NULL,
    "name" text NOT NULL,
    "role" text NOT NULL,
    "partitions" text[] NOT NULL,
    "expires_at" timestamptz,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "token_id")
);

ALTER TABLE radarflow.api_tokens ENABLE ROW LEVEL SECURITY;

CREATE TABLE radarflow.sessions (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "session_id" text NOT NULL,
    "user" text NOT NULL,
    "method" text NOT NULL,
    "address" text,
    "user_agent" text,
    "expires_at" timestamptz NOT NULL,
    "created_at" timestamptz NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "session_id")
);

ALTER TABLE radarflow.sessions ENABLE ROW LEVEL SECURITY;

CREATE TABLE radarflow.receivers (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "url" text NOT NULL,
    "kind" text NOT NULL,
    "group_by" text[] NOT NULL,
    "group_wait_ms" bigint NOT NULL,
    "group_interval_ms" bigint NOT NULL,
    "repeat_interval_ms" bigint NOT NULL,
    "send_resolved" boolean NOT NULL,
    "header_names" text[] NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.receivers ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.receivers FOR SELECT USING (tenant_id = radarflow.reader_tenant());

-- Nothing moves somebody from one tenant to another.
CREATE FUNCTION radarflow.tenant_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.tenant_id IS DISTINCT FROM OLD.tenant_id THEN
        RAISE EXCEPTION 'tenant_id of a row never changes' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.users FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.roles FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.api_tokens FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.sessions FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.receivers FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
