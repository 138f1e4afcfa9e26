//! What the made-up shops sell.

/// An article.
#[derive(Debug, Clone, Copy)]
pub(super) struct Article {
    /// As the till prints it.
    pub name: &'static str,
    /// Its id.
    pub id: &'static str,
    /// The price with VAT, in cents.
    pub cents: i64,
    /// The rate of its VAT, in thousandths.
    pub vat: i64,
}

const fn article(name: &'static str, id: &'static str, cents: i64, vat: i64) -> Article {
    Article {
        name,
        id,
        cents,
        vat,
    }
}

/// The French rates, in thousandths.
const FOOD: i64 = 55;
const SERVED: i64 = 100;
const FULL: i64 = 200;

/// Everything.
pub(super) const CATALOGUE: [Article; 36] = [
    article("Baguette tradition", "BOU-001", 130, FOOD),
    article("Pain de campagne, tranché", "BOU-002", 285, FOOD),
    article("Croissant au beurre", "BOU-010", 125, FOOD),
    article("Pain au chocolat", "BOU-011", 140, FOOD),
    article("Éclair au café", "PAT-003", 320, FOOD),
    article("Tarte aux pommes, 6 parts", "PAT-007", 1490, FOOD),
    article("Paris-Brest", "PAT-009", 480, FOOD),
    article("Pâte brisée pur beurre", "EPI-104", 215, FOOD),
    article("Lait demi-écrémé, 1 L", "CRE-001", 118, FOOD),
    article("Beurre doux 250 g", "CRE-004", 289, FOOD),
    article("Crème fraîche épaisse, 20 cl", "CRE-012", 165, FOOD),
    article("Comté 18 mois, 200 g", "CRE-031", 545, FOOD),
    article("Œufs plein air, boîte de 6", "CRE-040", 249, FOOD),
    article("Tomates grappe, 1 kg", "FEL-021", 299, FOOD),
    article("Pommes Gala, 1 kg", "FEL-003", 239, FOOD),
    article("Haricots verts extra-fins", "FEL-044", 349, FOOD),
    article("Café moulu \"Grand Arôme\", 250 g", "EPI-300", 399, FOOD),
    article("Confiture de mûres", "EPI-212", 325, FOOD),
    article("Eau minérale, 6 × 1,5 L", "BOI-001", 312, FOOD),
    article("Formule(s) midi", "RES-001", 1490, SERVED),
    article("Plat du jour", "RES-002", 1150, SERVED),
    article("Croque-monsieur", "RES-010", 690, SERVED),
    article("Salade niçoise", "RES-014", 1090, SERVED),
    article("Crêpe complète", "RES-021", 890, SERVED),
    article("Café", "RES-101", 200, SERVED),
    article("Thé à la menthe", "RES-104", 350, SERVED),
    article("Jus d'orange pressé", "RES-110", 420, SERVED),
    article("Bière pression, 25 cl", "BAR-001", 390, FULL),
    article("Kir cassis", "BAR-006", 450, FULL),
    article("Côtes-du-Rhône, 75 cl", "CAV-012", 890, FULL),
    article("Crémant d'Alsace, brut", "CAV-030", 1195, FULL),
    article("Essuie-tout, lot de 4", "ENT-002", 379, FULL),
    article("Lessive liquide, 2 L", "ENT-015", 899, FULL),
    article("Piles AA, \"longue durée\", lot de 8", "BAZ-008", 749, FULL),
    article("Carnet à spirale A5", "PAP-003", 259, FULL),
    article("Sac cabas réutilisable", "BAZ-001", 100, FULL),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_article_has_an_id_of_its_own() {
        let ids: HashSet<_> = CATALOGUE.iter().map(|article| article.id).collect();
        assert_eq!(ids.len(), CATALOGUE.len());
    }
}
