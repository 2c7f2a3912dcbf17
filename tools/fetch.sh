#!/bin/sh
# tools/fetch.sh FROM FOLDER [SHA256]: one file into FOLDER, by curl; prints its path.
#
# FROM is a URL, the page of a file on MediaFire, or a file on this machine, which is not copied. A download that
# was interrupted resumes; a file is complete or absent, and verified if SHA256 is given.
set -eu
from=$1 folder=$2 sha256=${3:-}

fail() {
    echo "geoclip: $*" >&2
    exit 1
}

verify() { # FILE
    case $1 in
        *.zip) [ "$(head -c 2 "$1")" = PK ] || fail "$1 is no zip; delete it and run the same command again" ;;
    esac
    [ -n "$sha256" ] || return 0
    found=$( (sha256sum "$1" 2>/dev/null || shasum -a 256 "$1") | cut -d ' ' -f 1)
    [ "$found" = "$sha256" ] ||
        fail "$1 has the SHA-256 $found, expected $sha256; delete it and run the same command again"
}

link_on_page() { # a MediaFire page on standard input; its button has the file's URL, plain or in base64
    page=$(cat)
    link=$(printf '%s' "$page" | grep -Eo 'https?://download[0-9]*\.mediafire\.com/[^"'"'"' <>]+' | head -n 1 || true)
    if [ -z "$link" ]; then
        coded=$(printf '%s' "$page" | grep -o 'data-scrambled-url="[^"]*"' | head -n 1 | cut -d '"' -f 2 || true)
        link=$(printf '%s' "$coded" | base64 -d 2>/dev/null || true)
    fi
    printf '%s' "$link"
}

case $from in
    *://*) ;;
    *)
        [ -f "$from" ] || fail "$from is neither a URL nor a file"
        verify "$from"
        echo "$from"
        exit
        ;;
esac

name=${from%%\?*}
name=${name%/file} # MediaFire's pages end so
to=$folder/${name##*/}
if [ ! -f "$to" ]; then
    mkdir -p "$folder"
    url=$from
    case $from in
        *mediafire.com/file/*)
            url=$(curl --fail --silent --show-error --location --retry 5 "$from" | link_on_page)
            [ -n "$url" ] || fail "no link to a file on $from: open it in a browser, save the file as $to, run the same command again"
            ;;
    esac
    echo "fetching $url to $to" >&2
    status=0
    curl --fail --location --retry 5 --retry-delay 5 --continue-at - --output "$to.part" "$url" >&2 || status=$?
    if [ "$status" = 33 ]; then # the server cannot resume
        rm -f "$to.part"
        status=0
        curl --fail --location --retry 5 --retry-delay 5 --output "$to.part" "$url" >&2 || status=$?
    fi
    [ "$status" = 0 ] || fail "$url was not fetched (curl ended with $status); rerun the command to resume, or save the file as $to by other means"
    mv "$to.part" "$to"
fi
verify "$to"
echo "$to"
