#!/bin/sh
# Pebble, a certificate authority for tests of ACME clients, in the foreground. Its directory is
# https://127.0.0.1:14000/dir, and https://127.0.0.1:15000/roots/0 has its root's certificate. It
# validates each name anew, on port 443, without a pause, at the address that /etc/hosts has.
#
# usage: authority.sh CERTIFICATE KEY    for its own server, in absolute paths
set -eu

export PEBBLE_AUTHZREUSE=0 PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0
exec pebble -config /dev/stdin <<END
{
	"pebble": {
		"listenAddress": "127.0.0.1:14000",
		"managementListenAddress": "127.0.0.1:15000",
		"certificate": "$1",
		"privateKey": "$2",
		"httpPort": 80,
		"tlsPort": 443
	}
}
END
