#!/usr/bin/perl
# Takes a TLS record with a ClientHello apart, as SVG: what stands where, for tls-records.md.
#
# usage: hello.pl FILE    with the bytes in hexadecimal
use strict;
use warnings;

my $bytes = pack 'H*', join '', map { s/#.*//r =~ s/\s//gr } <>;
my ($at, @rows) = (0);

# Names from the IANA's registries.
my %extensions = (
	0 => 'server_name', 5 => 'status_request', 10 => 'supported_groups', 11 => 'ec_point_formats',
	13 => 'signature_algorithms', 16 => 'application_layer_protocol_negotiation',
	18 => 'signed_certificate_timestamp', 23 => 'extended_master_secret', 27 => 'compress_certificate',
	35 => 'session_ticket', 43 => 'supported_versions', 45 => 'psk_key_exchange_modes',
	51 => 'key_share', 17613 => 'application_settings', 65037 => 'encrypted_client_hello',
	65281 => 'renegotiation_info',
);
my %groups = (0x001d => 'x25519', 0x11ec => 'X25519MLKEM768');

# The next LENGTH bytes are WHAT, in the layer CLASS.
sub take {
	my ($length, $what, $class) = @_;
	die "hello.pl: too short for $what\n" if $at + $length > length $bytes;
	my $taken = substr $bytes, $at, $length;
	my $is_long = $length > 7;
	my $shown = join ' ', map { sprintf '%02x', $_ } unpack 'C*', substr $taken, 0, $is_long ? 6 : 7;
	push @rows, [$at, $shown . ($is_long ? ' …' : ''), $what, $class];
	$at += $length;
	return $taken;
}

sub number {
	my ($length, $what, $class) = @_;
	my $value = unpack 'N', substr "\0\0\0" . take($length, $what, $class), -4;
	$rows[-1][2] .= " = $value" if $what =~ /length/;
	return $value;
}

sub is_grease { # RFC 8701
	return ($_[0] & 0x0f0f) == 0x0a0a && $_[0] >> 8 == ($_[0] & 0xff);
}

# What is said of an extension's data.
sub describe {
	my ($type, $data) = @_;
	return ': ' . join ', ', unpack 'x2 (C/a)*', $data if $type == 16;
	return '' if $type != 51;
	my @shares = unpack 'x2 (n n/a)*', $data;
	my @said;
	while (my ($group, $key) = splice @shares, 0, 2) {
		push @said, $groups{$group} if $groups{$group};
	}
	return ': ' . join ', ', @said;
}

sub server_name {
	number(2, 'server_name_list: length', 'name');
	take(1, 'name_type: host_name', 'name');
	my $length = number(2, 'HostName: length', 'name');
	my $name = take($length, 'HostName', 'found');
	$rows[-1][2] .= ": $name";
}

sub extension {
	my ($type, $length) = unpack 'n2', substr $bytes, $at;
	my $name = is_grease($type) ? 'reserved (GREASE)' : $extensions{$type} // "extension $type";
	take(4, "$name, $length bytes", 'extension');
	return server_name() if $type == 0;
	return if $length == 0;
	my $data = take($length, 'extension_data', 'extension');
	$rows[-1][2] .= describe($type, $data);
}

take(1, 'type: handshake', 'record');
take(2, 'legacy_record_version', 'record');
number(2, 'length', 'record');
take(1, 'msg_type: client_hello', 'handshake');
number(3, 'length', 'handshake');
take(2, 'legacy_version', 'hello');
take(32, 'random', 'hello');
take(number(1, 'legacy_session_id: length', 'hello'), 'legacy_session_id', 'hello');
take(number(2, 'cipher_suites: length', 'hello'), 'cipher_suites', 'hello');
take(number(1, 'legacy_compression_methods: length', 'hello'), 'legacy_compression_methods', 'hello');
my $end = number(2, 'extensions: length', 'hello') + $at;
extension() while $at < $end;
die "hello.pl: bytes are left over\n" if $at != length $bytes;

# As narrow as it can be: on a telephone it is made smaller still.
my ($width, $line, $top) = (500, 20, 8);
my $height = 2 * $top + $line * @rows;
print <<"END";
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" role="img">
<style>
text { font: 13px sans-serif; fill: #123; }
.bytes { font: 12px monospace; }
.record { fill: #e4e4e4; } .handshake { fill: #d3e3f5; } .hello { fill: #e6f0fa; }
.extension { fill: #eef5e6; } .name { fill: #fdf0cf; } .found { fill: #fbd27a; }
</style>
<rect width="$width" height="$height" fill="#fff"/>
END
for my $i (0 .. $#rows) {
	my ($offset, $shown, $what, $class) = @{$rows[$i]};
	$what =~ s/&/&amp;/g;
	my $y = $top + $line * $i;
	printf qq{<rect x="4" y="%d" width="%d" height="%d" class="%s"/>\n}, $y, $width - 8, $line - 1, $class;
	printf qq{<text x="36" y="%d" class="bytes" text-anchor="end">%d</text>}, $y + 14, $offset;
	printf qq{<text x="46" y="%d" class="bytes">%s</text>}, $y + 14, $shown;
	printf qq{<text x="204" y="%d">%s</text>\n}, $y + 14, $what;
}
print "</svg>\n";
