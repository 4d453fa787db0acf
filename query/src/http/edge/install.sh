#!/bin/sh
# Installs what this archive holds: for Radarflow's agent, or for ServiceRadar's where that is installed and Radarflow is not.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
umask 077
if [ -x /usr/bin/radarflow ]; then
    # One that runs would put back who it was.
    systemctl stop radarflow-agent 2>/dev/null || :
    mkdir -p /var/lib/private/radarflow-agent
    install -m 0600 "$here/radarflow/identity.json" /var/lib/private/radarflow-agent/identity.json
    install -m 0644 "$here/radarflow/radarflow-agent.service" /etc/systemd/system/radarflow-agent.service
    systemctl daemon-reload
    systemctl enable radarflow-agent
    systemctl restart radarflow-agent
else
    mkdir -p /etc/serviceradar/certs
    install -m 0644 "$here/config/config.json" /etc/serviceradar/agent.json
    install -m 0644 "$here/certs/component.pem" "$here/certs/ca-chain.pem" /etc/serviceradar/certs/
    install -m 0600 "$here/certs/component-key.pem" /etc/serviceradar/certs/
    if id serviceradar >/dev/null 2>&1; then
        chown -R serviceradar /etc/serviceradar/agent.json /etc/serviceradar/certs
    fi
    systemctl restart serviceradar-agent
fi
