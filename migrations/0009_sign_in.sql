-- How people sign in beside a password: identity providers, links sent by mail, codes of an authenticator.

ALTER TABLE radarflow.users
    ADD COLUMN "second_factor" boolean NOT NULL DEFAULT false;
ALTER TABLE radarflow.users
    ADD COLUMN "provider" text;
ALTER TABLE radarflow.users
    ADD COLUMN "subject" text;

CREATE TABLE radarflow.sign_in_links (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "link_id" text NOT NULL,
    "user" text NOT NULL,
    "address" text,
    "expires_at" timestamptz NOT NULL,
    "created_at" timestamptz NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "link_id")
);

ALTER TABLE radarflow.sign_in_links ENABLE ROW LEVEL SECURITY;

CREATE TABLE radarflow.identity_providers (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "issuer" text NOT NULL,
    "client_id" text NOT NULL,
    "has_client_secret" boolean NOT NULL,
    "scopes" text[] NOT NULL,
    "user_claim" text NOT NULL,
    "groups_claim" text NOT NULL,
    "roles" text[] NOT NULL,
    "default_role" text,
    "create_users" boolean NOT NULL,
    "disabled" boolean NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.identity_providers ENABLE ROW LEVEL SECURITY;

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.sign_in_links FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.identity_providers FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
