# A table whose samples share few tokens: gradients are kept for the tokens alone that a sample has.

"""
    TokenPieces{T}(q, K)

What becomes [`Tokens`](@ref) once it is filled: for every token its samples, and the gradients (q, K, m) with respect to its
column, one array for each stretch of samples. How many samples have a token is not known before all have been seen.
"""
struct TokenPieces{T<:Real}
    q::Int
    K::Int
    at::Dict{Int,Tuple{Vector{Int},Vector{Array{T,3}}}}
end
TokenPieces{T}(q::Integer, K::Integer) where {T} = TokenPieces{T}(q, K, Dict())

"the factor that was filled"
finished(factor::Union{Factor,Positions}) = factor
function finished(whole::TokenPieces)
    return Tokens(Dict(token => (samples, cat(pieces...; dims=3)) for (token, (samples, pieces)) in whole.at))
end

function write_input!(whole::TokenPieces{T}, site::Table, tokens, own) where {T}
    tokens, counts = by_sample(tokens, own), Dict{Int,Int}()
    for (i, j) in enumerate(own), token in unique(view(tokens, :, i))
        push!(first(get!(() -> (Int[], Array{T,3}[]), whole.at, token)), j)
        counts[token] = get(counts, token, 0) + 1
    end
    for (token, count) in counts
        push!(last(whole.at[token]), zeros(T, whole.q, whole.K, count))
    end
    return tokens
end

function write_error!(whole::TokenPieces, site::Table, wanted, tokens, d, k, own)
    d = by_sample_and_feature(d, own)
    for (i, j) in enumerate(own), (t, token) in enumerate(view(tokens, :, i))
        token == padding(site.layer) && continue
        samples, pieces = whole.at[token]
        piece = last(pieces)
        here = searchsortedfirst(samples, j) - (length(samples) - size(piece, 3))
        view(piece, :, k, here) .+= view(d, :, t, i)
    end
end
