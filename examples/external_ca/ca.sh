#!/bin/sh
# An authority of one's own behind ARGOSY_CA_COMMAND, with nothing but openssl.
#
#   ca.sh init                    makes a root and an issuing authority in $CA_HOME
#   ca.sh issue DEVICE_ID DAYS    request (PEM) on standard input, chain (PEM) on standard output
#   ca.sh revoke SERIAL           in hex; ends with 3 when the certificate is not of this authority
#   ca.sh crl                     the revocation list (PEM)
#
# ARGOSY_CA_ROOTS is $CA_HOME/roots.pem. For a real one, keep the keys in a token or a vault:
# the same four verbs are all that the platform asks for.
set -eu

CA_HOME=${CA_HOME:-$(dirname "$(readlink -f "$0")")/ca}
export CA_HOME
umask 077

configuration() {
	cat <<-'EOF'
	[ca]
	default_ca = issuing
	[issuing]
	dir = $ENV::CA_HOME
	database = $dir/index.txt
	new_certs_dir = $dir/issued
	certificate = $dir/issuing.pem
	private_key = $dir/issuing.key
	rand_serial = yes
	default_md = sha256
	default_crl_days = 7
	policy = anything
	unique_subject = no
	email_in_dn = no
	copy_extensions = none
	[anything]
	commonName = optional
	[req]
	distinguished_name = name
	[name]
	[root]
	basicConstraints = critical, CA:true, pathlen:1
	keyUsage = critical, keyCertSign, cRLSign
	subjectKeyIdentifier = hash
	[below]
	basicConstraints = critical, CA:true, pathlen:0
	keyUsage = critical, keyCertSign, cRLSign
	subjectKeyIdentifier = hash
	authorityKeyIdentifier = keyid
	[device]
	basicConstraints = critical, CA:false
	keyUsage = critical, digitalSignature
	extendedKeyUsage = clientAuth
	subjectKeyIdentifier = hash
	authorityKeyIdentifier = keyid
	EOF
}

new_key() {
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

# One at a time: openssl's index is a plain file.
alone() {
	exec 9>"$CA_HOME/lock"
	flock 9
}

init() {
	mkdir -p "$CA_HOME/issued"
	cd "$CA_HOME"
	configuration >openssl.cnf
	: >index.txt
	new_key root.key
	openssl req -new -x509 -config openssl.cnf -extensions root -key root.key -sha256 \
		-days 3650 -subj "/CN=Our own root" -out root.pem
	new_key issuing.key
	openssl req -new -config openssl.cnf -key issuing.key -subj "/CN=Our own devices" \
		-out issuing.csr
	openssl x509 -req -in issuing.csr -CA root.pem -CAkey root.key -sha256 -days 1825 \
		-set_serial "0x$(openssl rand -hex 16)" -extfile openssl.cnf -extensions below \
		-out issuing.pem 2>/dev/null
	cat root.pem issuing.pem >roots.pem
}

issue() {
	alone
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	cat >"$work/device.csr"
	openssl ca -batch -notext -config "$CA_HOME/openssl.cnf" -extensions device \
		-subj "/CN=$1" -days "$2" -in "$work/device.csr" -out "$work/device.pem" 2>"$work/said" ||
		{ tail -n 1 "$work/said" >&2; exit 1; }
	cat "$work/device.pem" "$CA_HOME/issuing.pem"
}

revoke() {
	alone
	serial=$(printf %s "$1" | tr a-f A-F)
	[ $((${#serial} % 2)) -eq 0 ] || serial=0$serial
	[ -f "$CA_HOME/issued/$serial.pem" ] || exit 3
	if grep -q "^R.*	$serial	" "$CA_HOME/index.txt"; then exit 0; fi
	openssl ca -config "$CA_HOME/openssl.cnf" -revoke "$CA_HOME/issued/$serial.pem" 2>/dev/null
}

crl() {
	alone
	openssl ca -gencrl -config "$CA_HOME/openssl.cnf" 2>/dev/null
}

verb=${1:-}
case "$verb" in
init | issue | revoke | crl)
	shift
	"$verb" "$@"
	;;
*)
	echo "usage: ca.sh init | issue DEVICE_ID DAYS | revoke SERIAL | crl" >&2
	exit 2
	;;
esac
