-- Which rule told what of a device.

ALTER TABLE radarflow.ocsf_devices
    ADD COLUMN "enriched_by" jsonb NOT NULL DEFAULT '{}';
