#!/bin/sh
# Writes the tickets that siege sends, loadtest/payloads/*.txt, and the list of them, loadtest/urls.txt.
# The same files come out every time; they are kept beside this script, so run it only to change them.
#
# Of 320 tickets every eighth is invalid, in one of six ways, and every fourth has CRLF line ends. The rest of what
# tills send is among the valid ones: names in quotes, accents, the same product twice, whole amounts, discounts.
set -eu
cd "$(dirname "$0")"
rm -rf payloads
mkdir payloads

awk '
function amount(cents,    sign) {
    sign = cents < 0 ? "-" : ""
    if (cents < 0) cents = -cents
    return sprintf("%s%d.%02d", sign, int(cents / 100), cents % 100)
}
# A fixed sequence, since the generators of the awks differ.
function draw(below) {
    state = (state * 1103 + 12345) % 65536
    return int(state / 65536 * below)
}
BEGIN {
    names = split("Formule(s) midi|Café|Plat du jour|Salade niçoise|\"Vin rouge, verre\"|Eau minérale|" \
        "Tarte Tatin|Thé vert|\"Pain \"\"campagne\"\"\"|Crème brûlée|Moules-frites|\"Menu enfant, -12 ans\"", name, "|")
    split("mismatch vat blank products line order", fault)
    state = 20011
    for (ticket = 1; ticket <= 320; ticket++) {
        wrong = ticket % 8 ? "" : fault[ticket / 8 % 6 + 1]
        lines = ""
        total = 0
        products = 1 + draw(5)
        for (line = 1; line <= products; line++) {
            product = line == products && products > 2 ? product : draw(96)
            price = 150 + product * 35
            total += price
            # 350 cents may be written 3.50, and 300 cents 3.
            text = price % 100 ? amount(price) : price / 100
            lines = lines name[product % names + 1] ",P" product "," text "\n"
        }
        if (ticket % 10 == 3) {
            total -= 100
            lines = lines "Remise fidélité,REM100,-1.00\n"
        }
        if (wrong == "line") lines = lines "no commas here\n"
        if (wrong == "products") lines = ""
        body = (wrong == "order" ? "" : "Order: S" 100000 + ticket "\n") \
            "VAT: " (wrong == "vat" ? "3,10" : amount(int(total / 11))) "\n" \
            "Total: " amount(wrong == "mismatch" ? total + 1 : total) "\n" \
            (wrong == "blank" ? "" : "\n") "product,product_id,price\n" lines
        if (ticket % 4 == 1 || ticket % 24 == 8) gsub("\n", "\r\n", body)
        file = sprintf("payloads/%03d.txt", ticket)
        printf "%s", body > file
        close(file)
        # siege puts the environment in place of the parentheses; paths are seen from the checkout.
        print "http://$(TICKETD)/ticket POST <loadtest/" file > "urls.txt"
    }
}'
