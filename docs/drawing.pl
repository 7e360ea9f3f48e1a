#!/usr/bin/perl
# Draws the boxes and arrows of FILE as SVG; architecture.txt has the format.
#
# usage: drawing.pl FILE
use strict;
use warnings;

# Narrow, because a telephone shows it smaller still.
my ($width, $height, $gap, $aside, $margin, $top) = (250, 52, 34, 20, 8, 8);
my ($rows, @shapes) = (0);

sub escaped {
	my ($text) = @_;
	$text =~ s/&/&amp;/g;
	$text =~ s/</&lt;/g;
	return $text;
}

sub left { return $margin + $_[0] * ($width + $aside) }
sub above { return $top + $_[0] * ($height + $gap) }
sub middle { return left($_[0]) + $width / 2 }

sub text {
	my ($x, $y, $text, $class) = @_;
	return sprintf qq{<text x="%d" y="%d" class="%s">%s</text>\n}, $x, $y, $class, escaped($text);
}

sub box {
	my ($column, $row, $files, $what) = @_;
	my $wide = $column == 2;
	my $x = left($wide ? 0 : $column);
	my $w = $wide ? 2 * $width + $aside : $width;
	return sprintf(qq{<rect x="%d" y="%d" width="%d" height="%d" rx="4"/>\n}, $x, above($row), $w, $height)
		. text($x + $w / 2, above($row) + 21, $files, 'files')
		. text($x + $w / 2, above($row) + 40, $what, 'what');
}

sub line {
	return sprintf qq{<line x1="%d" y1="%d" x2="%d" y2="%d" marker-end="url(#head)"/>\n}, @_;
}

# Beside its arrow, so that it is not crossed by it. An arrow up is beside the one down.
sub vertical {
	my ($column, $row, $text, $is_up) = @_;
	my ($x, $from, $to) = (middle($column) + ($is_up ? 10 : -90), above($row) + $height, above($row + 1));
	($from, $to) = ($to, $from) if $is_up;
	return line($x, $from, $x, $to)
		. ($text eq '' ? '' : text($x + 8, above($row + 1) - $gap / 2 + 4, $text, 'arrow'));
}

sub across {
	my ($row, $other, $text) = @_;
	my ($y, $x) = (above($row) + $height / 2, left(0) + $width);
	return line($x, $y, left(1), $y)
		. (defined $other ? line($x, $y, left(1), above($other) + $height / 2) : '')
		. text(left(1) - $aside / 2, above($row) - 6, $text, 'over');
}

while (<>) {
	next if /^#|^\s*$/;
	if (/^lane (\d) (.*)/) {
		$top = 40;
		push @shapes, text(middle($1), $top - 14, $2, 'lane');
	} elsif (/^box (\d) (\d+) (.*) \| (.*)/) {
		push @shapes, box($1, $2, $3, $4);
		$rows = $2 + 1 if $2 >= $rows;
	} elsif (/^(down|up) (\d) (\d+) ?(.*)/) {
		push @shapes, vertical($2, $3, $4, $1 eq 'up');
	} elsif (/^across (\d+) (?:(\d+) )?(.*)/) {
		push @shapes, across($1, $2, $3);
	} else {
		die "$ARGV:$.: $_";
	}
}

my ($all_width, $all_height) = (2 * $width + $aside + 2 * $margin, above($rows) - $gap + $margin);
print <<"END", @shapes, "</svg>\n";
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $all_width $all_height" role="img">
<style>
svg { background: #fff; font-family: sans-serif; }
rect { fill: #eef3f8; stroke: #345; }
line { stroke: #345; stroke-width: 1.5; }
path { fill: #345; }
text { text-anchor: middle; fill: #123; }
.files { font-size: 15px; font-weight: bold; }
.what { font-size: 13px; }
.lane { font-size: 15px; font-style: italic; }
.arrow { font-size: 13px; text-anchor: start; }
.over { font-size: 13px; }
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>
<rect x="0" y="0" width="$all_width" height="$all_height" style="fill: #fff; stroke: none"/>
END
